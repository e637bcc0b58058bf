"""CIFAR-10 and CIFAR-100 in their official binary version (no pickles).

A record is one label byte (CIFAR-10) or a coarse and a fine label byte (CIFAR-100), then 1,024 red, 1,024 green and
1,024 blue bytes, each row by row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import numpy as np
from annotated_types import MinLen

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.files import sha256
from workflow_scripts.core.sources import shown
from workflow_scripts.core.specs import ReaderSpec
from workflow_scripts.data.archives import unpack
from workflow_scripts.data.reading import BLOCK, Images, raw_files

PIXELS = 3 * 32 * 32


SPEC = ReaderSpec()


@dataclass(frozen=True)
class Options:
    files: str | Annotated[tuple[str, ...], MinLen(1)]
    """The batches: a path or glob below the data root, or a list of alternatives; also the official archive."""
    members: str = "*.bin"
    """Which batches of an archive: a pattern for the name of its files."""
    records: Literal["cifar10", "cifar100"] = "cifar10"
    """`cifar10`: 3,073 bytes, one label; `cifar100`: 3,074 bytes, coarse and fine label."""
    labels: Literal["fine", "coarse"] = "fine"
    """Which label of CIFAR-100: 100 fine classes or 20 coarse ones."""


def batches(path: Path, pattern: str) -> list[tuple[str, np.ndarray]]:
    """(name, bytes as uint8) of a batch file, or of each matching file of an archive; a file stays on the disk.

    Raises:
        OODError: no file of the archive matches.
    """
    if path.suffix == ".bin":
        content = np.memmap(path, np.uint8, mode="r") if path.stat().st_size else np.empty(0, np.uint8)
        return [(path.name, content)]
    found = {PurePosixPath(member.name).name: np.frombuffer(member.read(), np.uint8) for member in unpack.members(path)
             if fnmatch(PurePosixPath(member.name).name, pattern)}
    if not found:
        raise OODError(f"{path}: no file {pattern} in it; the official binary version expected")
    return sorted(found.items())


def read(options: Options, root: Path | None) -> Images:
    """All records of all files, in file order. Pixels stay on the disk until blocks are read.

    Raises:
        OODError: no file; a file that is not a whole number of records; a label out of range.
    """
    leading = 1 if options.records == "cifar10" else 2
    classes = {"cifar10": 10, "cifar100": 20 if options.labels == "coarse" else 100}[options.records]
    column = 0 if options.records == "cifar10" or options.labels == "coarse" else 1
    tables, names, sources = [], [], {}
    record = leading + PIXELS
    for path in raw_files(options.files, root):
        for name, content in batches(path, options.members):
            if len(content) == 0 or len(content) % record:
                raise OODError(f"{path}: {name} has {len(content):,} bytes, not a whole number of {options.records} "
                               f"records of {record:,} bytes; the file is truncated or another version; take the "
                               "official binary version again")
            table = content.reshape(-1, record)
            if (largest := int(table[:, column].max())) >= classes:
                raise OODError(f"{path}: label {largest} in records of {options.records}, which has {classes} "
                               f"{options.labels if leading == 2 else ''} classes; wrong `records` or a corrupt file")
            tables.append(table)
            names += [f"{name}:{i}" for i in range(len(table))]
        sources[shown(path, root)] = sha256(path)
    starts = np.cumsum([0, *map(len, tables)])

    def blocks(index: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        for at in range(0, len(index), BLOCK):
            wanted = index[at:at + BLOCK]
            which = np.searchsorted(starts, wanted, side="right") - 1
            rows = np.empty((len(wanted), PIXELS), np.uint8)
            for number in np.unique(which).tolist():
                here = which == number
                rows[here] = tables[number][wanted[here] - starts[number], leading:]
            yield at, np.ascontiguousarray(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))  # (n, 32, 32, 3)

    return Images(
        labels=np.concatenate([table[:, column] for table in tables]).astype(np.int64),
        names=names,
        classes=tuple(str(i) for i in range(classes)),
        sources=sources,
        blocks=blocks,
    )
