"""Cached features, heads and statistics: opened, checked and read in blocks, as numpy arrays.

What every score takes for granted is checked here, once: the datasets are there, sizes agree, all numbers are finite.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from array_api_compat import array_namespace

from workflow_scripts.core.errors import OODError, nearest
from workflow_scripts.core.files import not_to_blame
from workflow_scripts.scores.base import Batch, BatchNorm, Head, Statistics

ROWS = 4096  # images per block
KEYS = ("features", "logits", "labels")
LARGE = 2**30  # bytes; banks of more stay in their file


def opened(path: Path) -> h5py.File:
    """Open an HDF5 file for reading. Raises OODError when it is missing or no HDF5."""
    try:
        return h5py.File(path, "r")
    except FileNotFoundError:
        raise OODError(f"{path}: no such file; the stage that writes it has to run first") from None
    except OSError as error:
        not_to_blame(path, error)
        raise OODError(f"{path}: not a readable HDF5 file ({error}); delete it and make it again") from None


def dataset(file: h5py.Group, key: str, dimensions: int) -> h5py.Dataset:
    """The dataset ``key``. Raises OODError when it is missing or has another number of dimensions."""
    if key not in file:
        raise OODError(f"{_place(file)}: no dataset '{key}'{nearest(key, file)}; it holds "
                       f"{', '.join(file) or 'nothing'}; make the file again")
    if file[key].ndim != dimensions:
        raise OODError(f"{_place(file)}: '{key}' should have {dimensions} dimensions, found shape {file[key].shape}; "
                       "make the file again")
    return file[key]


def _place(group: h5py.Group) -> str:
    return group.file.filename + (f", set {group.name[1:]}" if group.name != "/" else "")


def finite(values: np.ndarray, file: Any, key: str, first: int = 0) -> np.ndarray:
    """``values`` themselves. Raises OODError naming file, key and row (from ``first``) of the first NaN or infinity."""
    if not np.isfinite(values).all():
        row = first + int(np.argwhere(~np.isfinite(values))[0][0])
        raise OODError(f"{file}: '{key}' is NaN or infinite in row {row}; the network has diverged or its input is "
                       "broken; check the checkpoint and extract again")
    return values


class Rows:
    """Rows (M, D) that stay in their file and are read when they are asked for, as numpy arrays.

    It has what scores ask of a bank: shape, dtype, namespace, slices of rows. Banks of more than :data:`LARGE` bytes
    are given in this form on the CPU (1.28 million rows of 2,048 float32 are 10.5 GB).
    """

    device = "cpu"

    def __init__(self, source: h5py.Dataset):
        self.source, self.shape, self.dtype = source, source.shape, source.dtype

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        return array_namespace(np.empty(0))

    def __getitem__(self, rows: Any) -> np.ndarray:
        return self.source[rows]

    def take(self, numbers: np.ndarray) -> np.ndarray:
        """Rows of these numbers, in any order. (N,) -> (N, D)."""
        wanted, places = np.unique(numbers, return_inverse=True)
        found = np.empty((len(wanted), self.shape[1]), self.dtype)
        for i, number in enumerate(wanted):
            self.source.read_direct(found, np.s_[number:number + 1], np.s_[i:i + 1])
        return found[places]


class RowsWithout(Rows):
    """The same without the rows of some numbers, as if they were not in the file.

    Args:
        without: their numbers, ascending.
    """

    def __init__(self, source: h5py.Dataset, without: np.ndarray):
        super().__init__(source)
        self.kept = np.delete(np.arange(len(source)), without)
        self.shape = (len(self.kept), *source.shape[1:])

    def __getitem__(self, rows: Any) -> np.ndarray:
        rows, *columns = rows if isinstance(rows, tuple) else (rows,)
        wanted = self.kept[rows]
        if not np.ndim(wanted) or not len(wanted):
            return self.source[(wanted, *columns)]
        first = wanted.min()
        return self.source[(slice(first, wanted.max() + 1), *columns)][wanted - first]

    def take(self, numbers: np.ndarray) -> np.ndarray:
        return super().take(self.kept[numbers])


def kept(values: np.ndarray, without: np.ndarray | None) -> np.ndarray:
    """Rows (M, ...) but those of these numbers; all of them where there are none."""
    return values if without is None else np.delete(values, without, axis=0)


def sets(path: Path) -> list[str]:
    """Names of the sets that a features file holds: that of the file, or those of its groups."""
    with opened(path) as file:
        return _sets(file, path)


def _sets(file: h5py.File, path: Path) -> list[str]:
    return [Path(path).stem] if set(KEYS) & set(file) or not len(file) else list(file)


class Features:
    """One set's ``features`` (N, D), ``logits`` (N, K) and ``labels`` (N,), in a file of its own or in a group.

    Args:
        path: the features file.
        name: the set; left out: the only one of the file.

    Raises:
        OODError: on opening, when the file is broken, or holds no such set, or fewer than two images of it.
    """

    def __init__(self, path: Path, name: str | None = None):
        self.handle = opened(path)
        there = _sets(self.handle, path)
        if name is None and len(there) > 1 or name and name not in there:
            self.handle.close()
            raise OODError(f"{path}: it holds the sets {', '.join(there)}; expected "
                           f"{name or 'one alone'}{nearest(name or '', there)}")
        self.name = name or there[0]
        inside = self.name in self.handle
        self.path = f"{path}, set {self.name}" if inside else str(path)
        self.file = self.handle[self.name] if inside else self.handle
        lengths = {key: len(self.file[key]) for key in KEYS if key in self.file}
        if len(set(lengths.values())) != 1:
            found = ", ".join(f"{key} {n}" for key, n in lengths.items()) or "none of them"
            raise OODError(f"{self.path}: features, logits and labels should have the same length, found {found}; "
                           "make the file again")
        self.size = next(iter(lengths.values()))
        if self.size < 2:
            raise OODError(f"{path}: set '{self.name}' holds {self.size or 'no'} image{'s' * (not self.size)}; a "
                           "score's quality cannot be measured with fewer than two")

    def __enter__(self) -> Features:
        return self

    def __exit__(self, *_: object) -> None:
        self.handle.close()

    def chunks(self) -> Iterator[slice]:
        """Blocks of rows."""
        return (slice(start, min(start + ROWS, self.size)) for start in range(0, self.size, ROWS))

    def read(self, key: str, rows: slice) -> np.ndarray:
        """Finite rows of ``features`` or ``logits``, or numbers of ``background``. -> (n, D or K) or (n,)."""
        return finite(dataset(self.file, key, 1 + (key != "background"))[rows], self.path, key, rows.start)

    def bank(self, key: str, without: np.ndarray | None = None) -> np.ndarray | Rows:
        """All rows of ``features`` or ``logits``, but those of some numbers, checked: in memory, or where they are many
        in the file, which must then stay open. -> (N, D or K)."""
        source = dataset(self.file, key, 2)
        if source.nbytes <= LARGE:
            return self.whole(key, without)
        for rows in self.chunks():
            self.read(key, rows)
        return Rows(source) if without is None else RowsWithout(source, without)

    def whole(self, key: str, without: np.ndarray | None = None) -> np.ndarray:
        """All rows of ``features`` or ``logits``, or all of ``background``, but those of some numbers, read block by
        block. -> (N, ...)."""
        source = dataset(self.file, key, 1 + (key != "background"))
        values = np.empty(source.shape, source.dtype)
        for rows in self.chunks():
            values[rows] = self.read(key, rows)
        return kept(values, without)

    def some(self, key: str, numbers: np.ndarray) -> np.ndarray:
        """Rows of these numbers, ascending, of ``features`` or ``logits``, or some of ``background``. -> (n, ...)."""
        return finite(dataset(self.file, key, 1 + (key != "background"))[numbers], self.path, key)

    @property
    def shuffled(self) -> Batch:
        """Logits (M, K) and background (M,) of jigsaws of the ID train images."""
        return Batch(**{key: finite(dataset(self.file, f"shuffled/{key}", n)[:], self.path, f"shuffled/{key}")
                        for key, n in (("logits", 2), ("background", 1))})

    @property
    def labels(self) -> np.ndarray:
        """Labels. -> (N,) int64."""
        return dataset(self.file, "labels", 1)[:]


def head(path: Path) -> tuple[Head, BatchNorm | None]:
    """The last linear layer, and the last batch norm where the network has one."""
    with opened(path) as file:
        layer = Head(*(finite(dataset(file, key, n)[:], path, key) for key, n in (("weight", 2), ("bias", 1))))
        if "bn_weight" not in file:
            return layer, None
        return layer, BatchNorm(*(finite(dataset(file, key, 1)[:], path, key) for key in ("bn_weight", "bn_bias")))


def statistics(path: Path, head: tuple[int, ...] | None = None) -> Statistics:
    """Class means, counts and mean of the ID train features.

    Args:
        path: the file.
        head: shape (K, D) of the network's head, where it is known.

    Raises:
        OODError: a class without train features; statistics of another network.
    """
    with opened(path) as file:
        means, counts, mean = (finite(dataset(file, key, n)[:], path, key)
                               for key, n in (("class_means", 2), ("counts", 1), ("mean", 1)))
    if (counts == 0).any():
        raise OODError(f"{path}: class {int(np.argmin(counts))} has no train features; every class needs at least one")
    if head is not None and means.shape != head:
        raise OODError(f"{path}: class means {means.shape}, but the checkpoint's head is {head}; the two belong to "
                       "different networks")
    return Statistics(means, counts, mean)
