"""What a reader hands over: labels and names at once, pixels in blocks when asked for.

A reader is one module in ``data/readers``. It offers ``SPEC``, a :class:`~workflow_scripts.core.specs.ReaderSpec`, a
frozen dataclass ``Options`` (each field with a docstring; an option ``files`` names raw files, see
:mod:`workflow_scripts.core.sources`) and ``read(options, root) -> Images``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.sources import alternatives, locate, printable
from workflow_scripts.data.tally import Tally

BLOCK = 1000  # images that array-like readers hand over at a time (3 MB at 32x32)


@dataclass(frozen=True)
class Images:
    """A dataset of N images before its geometry is fixed.

    ``blocks(index)`` takes numbers in any order and yields ``(start, block)``: ``block`` holds the images
    ``index[start : start + len(block)]``, for
    ``kind`` "images" uint8 (n, H, W, 3), for "inputs" float32 (n, 3, H, W) already in the network's input space. Blocks
    may come in any order; an image no block holds could not be decoded and was allowed to be skipped.
    """

    labels: np.ndarray
    """int64 (N,); -1 where an image has no label."""
    names: Sequence[str]
    """N source names, e.g. ``data_batch_1.bin:17``."""
    classes: tuple[str, ...]
    """Class names in the order of the labels; empty for sets without labels."""
    sources: dict[str, str]
    """Raw file -> its sha256, or distribution -> its version."""
    blocks: Callable[[np.ndarray], Iterator[tuple[int, np.ndarray]]]
    kind: Literal["images", "inputs"] = "images"
    left_out: Tally = field(default_factory=Tally)
    """Files of the sources that are none of these images; those that cannot be decoded come while blocks are read."""
    remarks: Tally = field(default_factory=Tally)
    """What was done to pixels that are not 8-bit RGB, and pages that were not read; filled while blocks are read."""
    named: Literal["numbers", "folders", "stated"] = "numbers"
    """Where the names of the classes are from: numbers of the format, for which a row may declare names; folders of the
    raw files, in sorted order; or, in an order that the reader's options state, either of them."""
    archive: tuple[Path, np.ndarray] | None = None
    """The LMDB file the images lie in, and their numbers there, int64 (N,); none for other forms."""

    def __len__(self) -> int:
        return len(self.labels)

    def in_order(self, classes: Sequence[str], key: str) -> Images:
        """The same images with the labels of classes in another order.

        Args:
            classes: the names, each once.
            key: names what states them, for errors.

        Raises:
            OODError: they are not the names of this set's classes.
        """
        if sorted(classes) != sorted(self.classes):
            twice = sorted({name for name in classes if classes.count(name) > 1})
            unknown, lacking = sorted(set(classes) - set(self.classes)), sorted(set(self.classes) - set(classes))
            differ = [f"{what}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}" for what, names in (
                ("without images", unknown), ("not named", lacking), ("named twice", twice)) if names]
            raise OODError(f"{key}: expected the {len(self.classes)} classes of the raw files by name, each once; "
                           f"{'; '.join(differ)}")
        place = np.array([classes.index(name) for name in self.classes], np.int64)
        return replace(self, labels=place[self.labels], classes=tuple(classes), named="stated")


class Numbered(Sequence):
    """Names ``file:number``, made when asked for: a set may have 79 million."""

    def __init__(self, file: str, numbers: np.ndarray) -> None:
        self.file, self.numbers = file, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, i: int) -> str:
        return f"{self.file}:{self.numbers[i]}"


    def encoded(self, index: np.ndarray) -> np.ndarray:
        """UTF-8 of the names ``index``. int64 (n,) -> bytes (n,)."""
        return np.strings.add(f"{self.file}:".encode(), self.numbers[index].astype(np.bytes_))


def encoded(names: Sequence[str], index: np.ndarray) -> np.ndarray:
    """UTF-8 of some of the names; of a file's name that is none, its bytes as ``\\xe9``. int64 (n,) -> bytes (n,)."""
    if isinstance(names, Numbered):
        return names.encoded(index)
    return np.array([printable(names[i]).encode() for i in index.tolist()])


def unlabelled(n: int) -> np.ndarray:
    """Labels of n images that have none. -> int64 (n,), all -1, read-only and without memory of their own."""
    return np.broadcast_to(np.int64(-1), n)


def array_blocks(array: np.ndarray, size: int = BLOCK) -> Callable[[np.ndarray], Iterator[tuple[int, np.ndarray]]]:
    """``blocks`` over an array (N, ...) that is in memory or memory-mapped."""

    def blocks(index: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        for start in range(0, len(index), size):
            yield start, np.ascontiguousarray(array[index[start:start + size]])

    return blocks


def threads() -> int:
    """Threads to decode with: those the workflow grants (``OMP_NUM_THREADS``), or the processors there are."""
    granted = os.environ.get("OMP_NUM_THREADS", "")
    return int(granted) if granted.isdigit() and int(granted) else min(8, len(os.sched_getaffinity(0))
                                                                      if hasattr(os, "sched_getaffinity") else 2)


def raw_files(files: str | Sequence[str], root: Path | None) -> list[Path]:
    """The raw files of a reader, see :func:`~workflow_scripts.core.sources.locate`.

    Raises:
        OODError: none of the alternatives exists.
    """
    found = locate(files, root)
    if not found:
        where = "and no data root is set" if root is None else f"below the data root {root}"
        raise OODError(f"{' or '.join(alternatives(files))} not found {where}; the config key data_root or the "
                       "environment variable OOD_DATA names that folder")
    return found
