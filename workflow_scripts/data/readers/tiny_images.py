"""80 Million Tiny Images, one file of records: 32 x 32 x 3 bytes in Fortran order, without header or labels.

In a record the row runs fastest, then the column, then the channel (bgresample 1c). The file is mapped into memory, not
read through a file position, so any number of forked or spawned workers read the right records (the released readers
share one position among all workers and return wrong ones, bgresample 1g-4). The set was withdrawn by its authors; who
holds a copy brings it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from annotated_types import Ge, MinLen

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.files import read_numbers
from workflow_scripts.core.sources import edges, shown
from workflow_scripts.core.specs import ReaderSpec
from workflow_scripts.data.reading import Images, Numbered, array_blocks, raw_files, unlabelled

SIDE = 32
RECORD = SIDE * SIDE * 3  # bytes
RECORDS = 79_302_017  # of the published file


SPEC = ReaderSpec()


@dataclass(frozen=True)
class Options:
    files: str | Annotated[tuple[str, ...], MinLen(1)]
    """The `.bin` file: a path below the data root, or a list of alternatives."""
    records: Annotated[int, Ge(1)] = 79_302_017
    """Records the file must have; the published one has 79,302,017."""
    exclude: str = ""
    """List of images to leave out, one number a line, counted from 1 (the images of CIFAR in it, supplied by the
    user): a path below the data root."""
    start: Annotated[int, Ge(0)] = 0
    """First record of a contiguous block, counted from 0. Neighbours share a topic: the file is ordered by search
    words."""
    count: Annotated[int, Ge(1)] | None = None
    """Images to take; left out: all from `start` on."""
    draw: bool = False
    """Draw the `count` images at random among all, instead of a block."""
    seed: Annotated[int, Ge(0)] = 0
    """Seed of the draw."""


class TinyImages:
    """Random access to the records; can be copied into forked and sent to spawned workers.

    Raises:
        OODError: the file is missing or is not ``records`` records.
    """

    def __init__(self, path: str | os.PathLike, records: int = RECORDS) -> None:
        self.path, self.records = Path(path), records
        try:
            size = self.path.stat().st_size
        except OSError as error:
            raise OODError(f"{self.path}: the file of records cannot be read ({error.strerror})") from None
        if size != records * RECORD:
            what = f"{size // RECORD:,} records" if size % RECORD == 0 else "no whole number of records"
            raise OODError(f"{self.path}: {records * RECORD:,} bytes ({records:,} records of {RECORD:,}) expected, "
                           f"found {size:,} ({what}); it is truncated or another file; set `records` for a part of it")
        self._open()

    def _open(self) -> None:
        self._bytes = np.memmap(self.path, np.uint8, mode="r", shape=(self.records, 3, SIDE, SIDE))

    def __getstate__(self) -> tuple[Path, int]:
        return self.path, self.records

    def __setstate__(self, state: tuple[Path, int]) -> None:
        self.path, self.records = state
        self._open()

    def __len__(self) -> int:
        return self.records

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        """Images by number. int64 (n,) -> uint8 (n, 32, 32, 3)."""
        return np.ascontiguousarray(self._bytes[index].transpose(0, 3, 2, 1))  # (n, channel, column, row)


def excluded(path: Path, records: int) -> np.ndarray:
    """Numbers, from 0, of the images a list leaves out; sorted, each once. -> int64 (M,).

    Raises:
        OODError: missing, or a line that is no number from 1 to ``records``.
    """
    numbers = np.array(read_numbers(path, "a list of image numbers"), np.int64)
    if len(numbers) and not 1 <= numbers.min() <= numbers.max() <= records:
        raise OODError(f"{path}: numbers from 1 to {records:,} expected (the list counts from 1), found "
                       f"{numbers.min():,} to {numbers.max():,}")
    return np.unique(numbers) - 1


def choose(options: Options, left_out: np.ndarray) -> np.ndarray:
    """Numbers of the images to take, ascending; none of ``left_out``. -> int64 (n,).

    Raises:
        OODError: fewer images are there than wanted.
    """
    if options.draw and (options.start or options.count is None):
        raise OODError("draw: true goes with a count and without a start: images are drawn among all")
    there = options.records - len(left_out) if options.draw else (
        options.records - options.start - len(left_out) + np.searchsorted(left_out, options.start))
    wanted = options.count if options.count is not None else max(0, there)
    if not 0 < wanted <= there:
        raise OODError(f"count: {wanted:,} images wanted, {max(0, there):,} are there"
                       f"{'' if options.draw else f' from record {options.start:,} on'}")
    if not options.draw:
        end = options.start + wanted + len(left_out)  # far enough, whatever is left out before
        block = np.arange(options.start, min(end, options.records))
        return (np.setdiff1d(block, left_out, assume_unique=True) if len(left_out) else block)[:wanted]
    # numbers among the images that are there, then past those that are left out: rank r is number r + how many before
    random = np.random.RandomState(options.seed)  # a frozen stream: the same draw under every numpy
    if wanted > there // 4:
        rank = np.sort(random.permutation(there)[:wanted])
    else:
        seen: dict[int, None] = {}
        while len(seen) < wanted:
            seen |= dict.fromkeys(random.randint(0, there, wanted - len(seen)).tolist())
        rank = np.sort(np.fromiter(seen, np.int64, wanted))
    return rank + np.searchsorted(left_out - np.arange(len(left_out)), rank, side="right")


def read(options: Options, root: Path | None) -> Images:
    """A block or a random draw of records, as an image set.

    Raises:
        OODError: the file is missing or not ``records`` records, a bad list, more images wanted than there are.
    """
    path = raw_files(options.files, root)[0]
    records = TinyImages(path, options.records)
    left_out, sources = np.empty(0, np.int64), {}
    for file in [path, *([raw_files(options.exclude, root)[0]] if options.exclude else [])]:
        size = file.stat().st_size  # hashing 244 GB would take a quarter of an hour
        sources[shown(file, root)] = f"{size} bytes, first and last 64 KiB {edges(file)}"
    if options.exclude:
        left_out = excluded(raw_files(options.exclude, root)[0], options.records)
    numbers = choose(options, left_out)
    return Images(labels=unlabelled(len(numbers)), names=Numbered(path.name, numbers), classes=(), sources=sources,
                  blocks=array_blocks(_Chosen(records, numbers)))


@dataclass(frozen=True)
class _Chosen:
    """Some of the records, numbered from 0."""

    records: TinyImages
    numbers: np.ndarray

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        return self.records[self.numbers[index]]
