"""Image stores: one HDF5 file per dataset and split.

``images`` uint8 (N, H, W, 3), or ``inputs`` float32 (N, 3, H, W) already in the network's input space; ``labels``
int64 (N,), -1 where there is none; ``names`` (N,) UTF-8. Attributes (JSON where not plain): ``dataset``, ``split``,
``classes``, ``definition``, ``sources``. The same images give the same bytes: no time stamps, fixed chunks. Pixels
carry checksums (Fletcher 32), so a damaged file is noticed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from workflow_scripts.data.base import Images
from workflow_scripts.errors import OODError
from workflow_scripts.files import atomic

_CHUNK = 2**20  # bytes of pixels per HDF5 chunk
_CACHE = 16 * 2**20  # bytes; blocks need not end where chunks end
_ATTRIBUTES = ("dataset", "split", "classes", "definition", "sources")


@dataclass(frozen=True)
class Store:
    """A store in memory. Exactly one of ``images`` and ``inputs`` is not None."""

    images: np.ndarray | None
    """uint8 (N, H, W, 3)."""
    inputs: np.ndarray | None
    """float32 (N, 3, H, W), in the network's input space."""
    labels: np.ndarray
    """int64 (N,), -1 where there is none."""
    names: list[str]
    """Source names."""
    classes: tuple[str, ...]
    """Class names in the order of the labels; empty for sets without labels."""
    attrs: dict[str, Any]
    """dataset, split, classes, definition, sources; JSON decoded."""


def write_store(path: str | os.PathLike, images: Images, index: np.ndarray, classes: tuple[str, ...],
                definition: dict[str, Any], resize: Callable[[np.ndarray], np.ndarray]) -> list[str]:
    """Write the images ``index`` (ascending) of ``images`` to ``path``, block by block, whole or not at all.

    Args:
        classes: class names; empty when labels are not used.
        definition: how the set was made; ``dataset`` and ``split`` are taken from it.
        resize: brings a block of "images" to its stored size.

    Returns:
        Names of images left out because they could not be decoded.

    Raises:
        OODError: no image; images of several sizes; a label out of range; a class without images.
    """
    _check(images.labels[index], classes, f"dataset '{definition['dataset']}' ({definition['split']})")
    with atomic(path) as partial, h5py.File(partial, "w", rdcc_nbytes=_CACHE) as file:
        there = _write_pixels(file, images, index, resize)
        if 0 < len(there) < len(index):
            _close_gaps(file[images.kind], there)
        kept = index[there]
        labels = images.labels[kept] if classes else np.full(len(kept), -1, np.int64)
        _check(labels, classes, f"dataset '{definition['dataset']}' ({definition['split']})")
        names = [images.names[i].encode() for i in kept.tolist()]
        file.create_dataset("labels", data=labels.astype(np.int64), track_times=False)
        text = h5py.string_dtype("utf-8", max(map(len, names)))
        file.create_dataset("names", data=np.array(names, text), track_times=False)
        file.attrs["dataset"], file.attrs["split"] = definition["dataset"], definition["split"]
        for key, value in (("classes", list(classes)), ("definition", definition), ("sources", images.sources)):
            file.attrs[key] = json.dumps(value, sort_keys=True)
    return [images.names[i] for i in np.delete(index, there).tolist()]


def _check(labels: np.ndarray, classes: tuple[str, ...], where: str) -> None:
    if not len(labels):
        raise OODError(f"{where}: no image is left; check the raw files and the row's options, limits and sample")
    if not classes:
        return
    if labels.min() < 0 or labels.max() >= len(classes):
        raise OODError(f"{where}: labels {labels.min()}..{labels.max()} with {len(classes)} classes; check `classes`")
    empty = [classes[i] for i in np.flatnonzero(np.bincount(labels, minlength=len(classes)) == 0)]
    if empty:
        more = f" and {len(empty) - 5} more" if len(empty) > 5 else ""
        raise OODError(f"{where}: {len(empty)} of {len(classes)} classes have no image: {', '.join(empty[:5])}{more}; "
                       "the raw files are incomplete or a limit is too small")


def _write_pixels(file: h5py.File, images: Images, index: np.ndarray,
                  resize: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Write blocks to where they belong. -> positions that were written, ascending."""
    written = np.zeros(len(index), bool)
    pixels = None
    for start, block in images.blocks(index):
        if images.kind == "images":
            block = resize(block)
        if pixels is None:
            shape = block.shape[1:]
            rows = max(1, min(len(index), _CHUNK // (block.dtype.itemsize * int(np.prod(shape)))))
            pixels = file.create_dataset(images.kind, (len(index), *shape), block.dtype, chunks=(rows, *shape),
                                         maxshape=(len(index), *shape), fletcher32=True, track_times=False)
        elif block.shape[1:] != pixels.shape[1:]:
            raise OODError(f"{images.names[index[start]]}: {block.shape[2]}x{block.shape[1]} pixels where the images "
                           f"before have {pixels.shape[2]}x{pixels.shape[1]}; give the dataset a geometry such as "
                           "squash32 or crop32")
        pixels[start:start + len(block)] = block
        written[start:start + len(block)] = True
    return np.flatnonzero(written)


def _close_gaps(pixels: h5py.Dataset, there: np.ndarray) -> None:
    """Move rows forward over those that were left out, then cut the end off."""
    step = pixels.chunks[0]
    for start in range(0, len(there), step):
        rows = there[start:start + step]
        pixels[start:start + len(rows)] = pixels[rows[0]:rows[-1] + 1][rows - rows[0]]
    pixels.resize(len(there), axis=0)


@contextmanager
def open_store(path: str | os.PathLike) -> Iterator[h5py.File]:
    """Open a store for reading, checked but not loaded.

    Raises:
        OODError: it is missing, truncated, corrupt (also when that shows while reading) or no image store.
    """
    again = "delete it and run again"
    try:
        with h5py.File(path, "r") as file:
            kinds = [kind for kind in ("images", "inputs") if kind in file]
            lacking = [key for key in ("labels", "names") if key not in file]
            lacking += [key for key in _ATTRIBUTES if key not in file.attrs]
            if len(kinds) != 1 or lacking:
                raise OODError(f"{path}: no image store: it lacks {', '.join(lacking) or 'images or inputs'}; {again}")
            pixels, count = file[kinds[0]], len(file["labels"])
            right = {"images": (np.uint8, 3), "inputs": (np.float32, 1)}[kinds[0]]  # type, axis of the 3 channels
            if pixels.ndim != 4 or pixels.dtype != right[0] or pixels.shape[right[1]] != 3:
                raise OODError(f"{path}: {kinds[0]} {pixels.dtype} {pixels.shape} is not what a store holds; {again}")
            if not len(pixels) == count == len(file["names"]):
                raise OODError(f"{path}: {len(pixels)} images, {count} labels and {len(file['names'])} names; {again}")
            if not count:
                raise OODError(f"{path}: it holds no image; {again}")
            yield file
    except FileNotFoundError:
        raise OODError(f"{path}: the image store is not there; the prepare stage writes it") from None
    except (OSError, RuntimeError, KeyError, json.JSONDecodeError) as error:
        raise OODError(f"{path}: not a whole image store, it is truncated or corrupt ({error}); {again}") from None


def load_store(path: str | os.PathLike, pixels: bool = True) -> Store:
    """Read a whole store into memory; without ``pixels`` none of them (0, H, W, 3).

    Raises:
        OODError: as :func:`open_store`; a class without images.
    """
    with open_store(path) as file:
        attrs = {key: file.attrs[key] for key in _ATTRIBUTES}
        attrs |= {key: json.loads(attrs[key]) for key in ("classes", "definition", "sources")}
        store = Store(
            images=file["images"][slice(None) if pixels else slice(0)] if "images" in file else None,
            inputs=file["inputs"][slice(None) if pixels else slice(0)] if "inputs" in file else None,
            labels=file["labels"][:],
            names=[name.decode() for name in file["names"][:]],
            classes=tuple(attrs["classes"]),
            attrs=attrs,
        )
    _check(store.labels, store.classes, str(path))
    return store


@contextmanager
def streamed(path: str | os.PathLike) -> Iterator[Store]:
    """A store whose pixels stay in the file: ``images`` or ``inputs`` is sliced as it is read, labels are in memory.

    Raises:
        OODError: there is no whole store.
    """
    with open_store(path) as file:
        yield Store(images=file.get("images"), inputs=file.get("inputs"), labels=file["labels"][:], names=[],
                    classes=tuple(json.loads(file.attrs["classes"])), attrs={})
