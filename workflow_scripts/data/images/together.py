"""Whether the sets of an ID set go together: classes compared by name, identical images found by their hashes."""

from __future__ import annotations

from collections.abc import Sequence

import h5py
import numpy as np

from workflow_scripts.core.errors import OODError


def same_classes(expected: Sequence[str], found: Sequence[str], one: str, other: str) -> None:
    """Compare classes by name and place.

    Args:
        one, other: say whose they are.

    Raises:
        OODError: other names, or the same in another order.
    """
    if list(expected) == list(found):
        return
    lacking, unknown = (sorted(set(a) - set(b)) for a, b in ((expected, found), (found, expected)))
    if lacking or unknown:
        differ = [f"only in {whose}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
                  for whose, names in ((one, lacking), (other, unknown)) if names]
        raise OODError(f"the classes of {one} ({len(expected)}) and of {other} ({len(found)}) differ; "
                       f"{'; '.join(differ)}. Classes are compared by name: give both the same")
    place = next(i for i, (a, b) in enumerate(zip(expected, found, strict=True)) if a != b)
    raise OODError(f"{one} and {other} have the same classes in another order: label {place} is "
                   f"'{expected[place]}' there and '{found[place]}' here; state one order for both, as the row's "
                   "classes: [...], names in the order of the labels")


def named(store: h5py.File) -> str:
    """A store as messages call it."""
    return f"dataset '{store.attrs['dataset']}' ({store.attrs['split']})"


def hashes(store: h5py.File) -> np.ndarray | None:
    """Hashes of a store's images, uint64 (N,); none where its pixels are not stored, or by an earlier version."""
    return store["hashes"][:] if "hashes" in store else None


def identical(found: np.ndarray | None, known: np.ndarray | None) -> int | None:
    """How many images are identical to one of others; none where it cannot be told. Two (N,) of :func:`hashes`."""
    return None if found is None or known is None else int(np.isin(found, known).sum())
