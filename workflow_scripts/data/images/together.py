"""Identical images of several stores, found by their hashes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import h5py
import numpy as np

HASHED = ("hashes", "file_hashes")
"""Datasets of a store: of stored pixels; of image files, where pixels are decoded when they are read."""
_BLOCK = 2**20  # hashes in memory at once


def named(store: h5py.File) -> str:
    """A store as messages call it."""
    return f"dataset '{store.attrs['dataset']}' ({store.attrs['split']})"


@dataclass(frozen=True)
class Hashes:
    """One hash for each image of a store."""

    of: str
    """What was hashed, a name of :data:`HASHED`; only hashes of the same can be compared."""
    values: np.ndarray | h5py.Dataset
    """uint64 (N,)."""

    def __len__(self) -> int:
        return len(self.values)

    def loaded(self) -> Hashes:
        """The same in memory, for when the store is closed."""
        return replace(self, values=self.values[:])

    def repeated(self) -> int:
        """How many images are copies of another one."""
        return len(self) - len(np.unique(self.values))


def hashes(store: h5py.File) -> Hashes | None:
    """Hashes of a store's images; none where an earlier version wrote it."""
    return next((Hashes(name, store[name]) for name in HASHED if name in store), None)


def identical(found: Hashes | None, known: Hashes | None) -> int | None:
    """How many images are identical to one of others; none where it cannot be told.

    Args:
        known: hashes of the others; read in blocks, since outliers may be 79 million.
    """
    if found is None or known is None or found.of != known.of:
        return None
    distinct, counts = np.unique(found.values, return_counts=True)
    there = np.zeros(len(distinct), bool)
    for start in range(0, len(known), _BLOCK):
        block = known.values[start:start + _BLOCK]
        at = np.minimum(np.searchsorted(distinct, block), len(distinct) - 1)
        there[at[distinct[at] == block]] = True
    return int(counts[there].sum())
