"""Image stores: one HDF5 file per dataset and split.

Pixels have one of four forms. ``images`` uint8 (N, H, W, 3). ``inputs`` float32 (N, 3, H, W), already in the network's
input space. Images whose long side was kept (geometry ``shortN``): ``flat``, uint8, one after another, with
``offsets``, ``widths`` and ``heights`` (N,). Images that are decoded when they are read (``pixels: decoded``):
``numbers`` int64 (N,) in the LMDB file that the attribute ``archive`` names, so nothing is stored twice.

``labels`` int64 (N,), -1 where there is none; ``names`` (N,) UTF-8; ``hashes`` uint64 (N,), equal for identical images
of identical size, or ``file_hashes`` uint64 (N,), equal for identical files, where no pixels are stored. Attributes
(JSON where not plain): ``dataset``,
``split``, ``classes``, ``definition``, ``sources``, and the records of a
:class:`~workflow_scripts.data.tally.Tally` each, ``left_out`` (files of the sources that are none of the images) and
``remarks`` (what was done to pixels that were not 8-bit RGB, images of one colour). The same images give the same
bytes: no time stamps, fixed chunks. Pixels carry checksums (Fletcher 32), so a damaged file is noticed.
"""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import h5py
import numpy as np

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.files import atomic, not_to_blame
from workflow_scripts.data.archives.lmdb_store import Archive
from workflow_scripts.data.images.geometry import keeps_long_side
from workflow_scripts.data.images.rows import CentreCrops, Encoded
from workflow_scripts.data.images.seen import Seen, file_hashes
from workflow_scripts.data.reading import Images, encoded

_CHUNK = 2**20  # bytes of pixels per HDF5 chunk
_CACHE = 16 * 2**20  # bytes; blocks need not end where chunks end
_NAMES = 2**16  # names in memory at once
_AGAIN = "delete it and run again"
_ATTRIBUTES = ("dataset", "split", "classes", "definition", "sources")
_TALLIES = ("left_out", "remarks")  # stores of earlier versions lack them

Rows: TypeAlias = h5py.Dataset | CentreCrops | Encoded


@dataclass(frozen=True)
class _Kind:
    """What pixels look like: axes, type, axis of the three channels, what else the file then holds."""

    axes: int
    dtype: Any
    channels: int | None = None
    beside: tuple[str, ...] = ()


KINDS = {"images": _Kind(4, np.uint8, 3), "inputs": _Kind(4, np.float32, 1),
         "flat": _Kind(1, np.uint8, None, ("offsets", "heights", "widths")),
         "numbers": _Kind(1, np.int64, None, ("archive",))}


@dataclass(frozen=True)
class Store:
    """A store in memory. Exactly one of ``images`` and ``inputs`` is not None."""

    images: np.ndarray | Rows | None
    """uint8 (N, H, W, 3), or what gives it when it is indexed."""
    inputs: np.ndarray | None
    """float32 (N, 3, H, W), in the network's input space."""
    labels: np.ndarray
    """int64 (N,), -1 where there is none."""
    names: list[str]
    """Source names."""
    classes: tuple[str, ...]
    """Class names in the order of the labels; empty for sets without labels."""
    attrs: dict[str, Any]
    """dataset, split, classes, definition, sources, left_out, remarks; JSON decoded."""

    def photos(self) -> np.ndarray | Rows:
        """:attr:`images`.

        Raises:
            OODError: the store holds ready network inputs.
        """
        if self.images is None:
            raise OODError(f"set '{self.attrs['dataset']}.{self.attrs['split']}' holds ready network inputs (a noise "
                           "set); images are expected")
        return self.images


def write_store(path: str | os.PathLike, images: Images, index: np.ndarray, classes: tuple[str, ...],
                definition: dict[str, Any], resize: Callable[[np.ndarray], np.ndarray],
                archive: str | None = None) -> list[str]:
    """Write the images ``index`` (ascending) of ``images`` to ``path``, block by block, whole or not at all.

    Args:
        classes: class names; empty when labels are not used.
        definition: how the set was made; ``dataset`` and ``split`` are taken from it.
        resize: brings a block of "images" to its stored size.
        archive: name of the LMDB file that the images lie in; given, their numbers are written, no pixels.

    Returns:
        Names of images left out because they could not be decoded.

    Raises:
        OODError: no image; images of several sizes; no value above 1; a label out of range; a class without images.
    """
    _check(images.labels[index], classes, f"dataset '{definition['dataset']}' ({definition['split']})")
    seen = Seen(len(index))
    with atomic(path) as partial, h5py.File(partial, "w", rdcc_nbytes=_CACHE) as file:
        if archive is not None:
            there = np.arange(len(index))
            file.create_dataset("numbers", data=images.archive[1][index], track_times=False)
            file.attrs["archive"] = archive
        elif keeps_long_side(definition.get("geometry", "")):
            there = _write_flat(file, images, index, resize, seen)
        else:
            there = _write_pixels(file, images, index, resize, seen)
            if 0 < len(there) < len(index):
                _close_gaps(file[images.kind], there)
        kept = index[there] if len(there) < len(index) else index
        labels = images.labels[kept] if classes else np.full(len(kept), -1, np.int64)
        _check(labels, classes, f"dataset '{definition['dataset']}' ({definition['split']})")
        file.create_dataset("labels", data=labels.astype(np.int64, copy=False), track_times=False)
        _write_names(file, images.names, kept)
        if archive is None:
            seen.judge(lambda number: images.names[index[number]], images.remarks)
            file.create_dataset("hashes", data=seen.hashes[there], track_times=False)
        else:
            files = map(Archive(images.archive[0]).read, images.archive[1][index].tolist())
            file.create_dataset("file_hashes", data=file_hashes(files, len(index)), track_times=False)
        file.attrs["dataset"], file.attrs["split"] = definition["dataset"], definition["split"]
        for key, value in (("classes", list(classes)), ("definition", definition), ("sources", images.sources),
                           ("left_out", images.left_out.records()), ("remarks", images.remarks.records())):
            file.attrs[key] = json.dumps(value, sort_keys=True)
    return [images.names[i] for i in np.delete(index, there).tolist()] if len(kept) < len(index) else []


def _write_names(file: h5py.File, names: Sequence[str], kept: np.ndarray) -> None:
    """Write the names of the images ``kept`` block by block: there may be 79 million."""
    blocks = [slice(start, start + _NAMES) for start in range(0, len(kept), _NAMES)]
    longest = max(int(np.strings.str_len(encoded(names, kept[block])).max()) for block in blocks)
    text = file.create_dataset("names", (len(kept),), h5py.string_dtype("utf-8", longest), track_times=False)
    for block in blocks:
        text[block] = encoded(names, kept[block]).astype(text.dtype)


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
                  resize: Callable[[np.ndarray], np.ndarray], seen: Seen) -> np.ndarray:
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
        seen.block(start, block)
        written[start:start + len(block)] = True
    return np.flatnonzero(written)


def _write_flat(file: h5py.File, images: Images, index: np.ndarray,
                resize: Callable[[np.ndarray], np.ndarray], seen: Seen) -> np.ndarray:
    """Write images of several sizes one after another as they come. -> positions that were written, ascending."""
    flat = file.create_dataset("flat", (0,), np.uint8, chunks=(_CHUNK,), maxshape=(None,), fletcher32=True,
                               track_times=False)
    offsets, sizes = np.full(len(index), -1, np.int64), np.zeros((len(index), 2), np.int32)
    end, waiting = 0, []

    def flush() -> None:
        flat.resize(end, axis=0)
        flat[end - sum(map(len, waiting)):] = np.concatenate(waiting)
        waiting.clear()

    for start, block in images.blocks(index):
        block = resize(block)
        seen.block(start, block)
        offsets[start:start + len(block)] = end + block[0].size * np.arange(len(block))
        sizes[start:start + len(block)] = block.shape[1:3]
        waiting.append(block.reshape(-1))
        end += block.size
        if sum(map(len, waiting)) >= _CACHE // 4:
            flush()
    if waiting:
        flush()
    there = np.flatnonzero(offsets >= 0)
    for name, values in (("offsets", offsets), ("heights", sizes[:, 0]), ("widths", sizes[:, 1])):
        file.create_dataset(name, data=values[there], track_times=False)
    return there


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
    try:
        file = h5py.File(path, "r")
    except FileNotFoundError:
        raise OODError(f"{path}: the image store is not there; the prepare stage writes it") from None
    except OSError as error:
        not_to_blame(path, error)
        raise _corrupt(path, error) from None
    with file:
        try:
            _check_store(file, path)
        except (OSError, RuntimeError, KeyError, json.JSONDecodeError) as error:
            not_to_blame(path, error)
            raise _corrupt(path, error) from None
        try:
            yield file
        except (OSError, RuntimeError) as error:  # of whatever is done with it; only a damaged store is said to be one
            if _of_hdf5(error) and (found := _damage(path)):
                raise _corrupt(path, found) from None
            raise


def _corrupt(path: str | os.PathLike, error: Exception) -> OODError:
    return OODError(f"{path}: not a whole image store, it is truncated or corrupt ({error}); {_AGAIN}")


def _of_hdf5(error: Exception) -> bool:
    """Whether reading or writing an HDF5 file failed, and not for lack of space."""
    frames = traceback.extract_tb(error.__traceback__)
    return getattr(error, "errno", None) is None and bool(frames) and "h5py" in frames[-1].filename


def _damage(path: str | os.PathLike) -> Exception | None:
    """What fails when all of a store is read."""
    try:
        with h5py.File(path, "r") as file:
            for name in file:
                for start in range(0, len(file[name]), rows := file[name].chunks[0] if file[name].chunks else 2**20):
                    file[name][start:start + rows]
    except (OSError, RuntimeError) as error:
        return error
    return None


def _check_store(file: h5py.File, path: str | os.PathLike) -> None:
    """Raises OODError, KeyError or what HDF5 raises when an open file is no whole store."""
    kinds = [kind for kind in KINDS if kind in file]
    lacking = [key for key in ("labels", "names") if key not in file]
    lacking += [key for key in _ATTRIBUTES if key not in file.attrs]
    if len(kinds) == 1:
        lacking += [key for key in KINDS[kinds[0]].beside if key not in file and key not in file.attrs]
    if len(kinds) != 1 or lacking:
        raise OODError(f"{path}: no image store: it lacks {', '.join(lacking) or ' or '.join(KINDS)}; {_AGAIN}")
    _attributes(file)
    pixels, kind, count = file[kinds[0]], KINDS[kinds[0]], len(file["labels"])
    if pixels.ndim != kind.axes or pixels.dtype != kind.dtype or (
            kind.channels is not None and pixels.shape[kind.channels] != 3):
        raise OODError(f"{path}: {kinds[0]} {pixels.dtype} {pixels.shape} is not what a store holds; {_AGAIN}")
    images = len(file["offsets"]) if kinds[0] == "flat" else len(pixels)
    if not images == count == len(file["names"]):
        raise OODError(f"{path}: {images} images, {count} labels and {len(file['names'])} names; {_AGAIN}")
    if not count:
        raise OODError(f"{path}: it holds no image; {_AGAIN}")
    if kinds[0] == "flat":
        needed = int((file["offsets"][:] + 3 * file["widths"][:].astype(np.int64) * file["heights"][:]).max())
        if len(pixels) < needed:
            raise OODError(f"{path}: {needed:,} bytes of pixels expected, found {len(pixels):,}; {_AGAIN}")


def pixel_rows(file: h5py.File) -> Rows:
    """The pixels of an open store as something to index: uint8 (N, H, W, 3), of noise sets float32 (N, 3, H, W).

    Raises:
        OODError: the archive of encoded images is not there, or is another one.
    """
    if "flat" in file:
        heights, widths = file["heights"][:], file["widths"][:]
        return CentreCrops(file["flat"], file["offsets"][:], widths, heights, int(np.minimum(heights, widths)[0]))
    if "numbers" in file:
        name, definition = file.attrs["archive"], json.loads(file.attrs["definition"])
        rows = Encoded(_found(name, file.filename), file["numbers"][:], definition["geometry"])
        if len(rows) and rows.numbers.max() >= len(rows.archive):
            raise OODError(f"{name}: {len(rows.archive):,} images, but {file.filename} was made of at least "
                           f"{rows.numbers.max() + 1:,}; run the prepare stage again")
        return rows
    return file["images"] if "images" in file else file["inputs"]


def _found(name: str, store: str) -> Path:
    """An archive by the name a store has for it: from where the run is, or below the data root."""
    root = os.environ.get("OOD_DATA")
    for path in (Path(name), *([Path(root) / name] if root else [])):
        if path.is_file():
            return path
    raise OODError(f"{name}: the LMDB file that {store} refers to is neither here ({Path.cwd()}) nor below the data "
                   f"root {root or '(OOD_DATA is not set)'}; run the workflow again, which packs it")


def load_store(path: str | os.PathLike, pixels: bool = True) -> Store:
    """Read a whole store into memory; images that are not stored stay in their archive. Without ``pixels`` none of them
    (0, H, W, 3).

    Raises:
        OODError: as :func:`open_store`; a class without images.
    """
    with open_store(path) as file:
        attrs = _attributes(file)
        store = Store(
            images=(_in_memory(file) if pixels else pixel_rows(file)[0:0]) if "inputs" not in file else None,
            inputs=file["inputs"][slice(None) if pixels else slice(0)] if "inputs" in file else None,
            labels=file["labels"][:],
            names=[name.decode() for name in file["names"][:]],
            classes=tuple(attrs["classes"]),
            attrs=attrs,
        )
    _check(store.labels, store.classes, str(path))
    return store


def _attributes(file: h5py.File) -> dict[str, Any]:
    attrs = {key: file.attrs[key] for key in _ATTRIBUTES}
    return attrs | {key: json.loads(attrs[key]) for key in ("classes", "definition", "sources")} | {
        key: json.loads(file.attrs.get(key, "[]")) for key in _TALLIES}


def _in_memory(file: h5py.File) -> np.ndarray | Rows:
    rows = pixel_rows(file)
    if isinstance(rows, CentreCrops):
        rows.flat = rows.flat[:]
    return rows[:] if isinstance(rows, h5py.Dataset) else rows


@contextmanager
def streamed(path: str | os.PathLike) -> Iterator[Store]:
    """A store whose pixels stay in the file: ``images`` or ``inputs`` is sliced as it is read, labels are in memory.

    Raises:
        OODError: there is no whole store.
    """
    with open_store(path) as file:
        attrs = _attributes(file)
        yield Store(images=None if "inputs" in file else pixel_rows(file), inputs=file.get("inputs"),
                    labels=file["labels"][:], names=[], classes=tuple(attrs["classes"]), attrs=attrs)
