"""Identical images of several stores, found by their hashes."""

from __future__ import annotations

import h5py
import numpy as np

_BLOCK = 2**20  # hashes in memory at once


def named(store: h5py.File) -> str:
    """A store as messages call it."""
    return f"dataset '{store.attrs['dataset']}' ({store.attrs['split']})"


def hashes(store: h5py.File) -> np.ndarray | None:
    """Hashes of a store's images, uint64 (N,); none where its pixels are not stored, or by an earlier version."""
    return store["hashes"][:] if "hashes" in store else None


def identical(found: np.ndarray | None, known: np.ndarray | h5py.Dataset | None) -> int | None:
    """How many images are identical to one of others; none where it cannot be told.

    Args:
        found: (N,) of :func:`hashes`.
        known: (M,) hashes of the others; read in blocks, since outliers may be 79 million.
    """
    if found is None or known is None:
        return None
    distinct, counts = np.unique(found, return_counts=True)
    there = np.zeros(len(distinct), bool)
    for start in range(0, len(known), _BLOCK):
        block = known[start:start + _BLOCK]
        at = np.minimum(np.searchsorted(distinct, block), len(distinct) - 1)
        there[at[distinct[at] == block]] = True
    return int(counts[there].sum())
