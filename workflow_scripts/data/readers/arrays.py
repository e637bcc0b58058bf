"""Images and labels as arrays: NumPy's `.npz` or `.npy`, or HDF5 (`.h5`, `.hdf5`).

Pixels are grey, (N, H, W) or (N, H, W, 1), or colour, (N, H, W, 3) or (N, 3, H, W). uint8 is taken as it is, bool is
black and white; of uint16 the high byte is taken; float in 0..1 is multiplied by 255 and rounded. Other numbers have
no meaning as pixels that can be known, and are refused. Nothing is unpickled.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import h5py
import numpy as np
from annotated_types import MinLen

from workflow_scripts.core.errors import OODError, nearest
from workflow_scripts.core.files import sha256
from workflow_scripts.core.locks import in_use
from workflow_scripts.core.sources import shown
from workflow_scripts.core.specs import ReaderSpec
from workflow_scripts.data.decoding import DARK, HIGH_BYTE, TIMES_255
from workflow_scripts.data.reading import BLOCK, Images, Numbered, array_blocks, raw_files, unlabelled
from workflow_scripts.data.tally import Tally

SPEC = ReaderSpec()
_SHAPES = "(N, H, W), (N, H, W, 1), (N, H, W, 3) or (N, 3, H, W)"


@dataclass(frozen=True)
class Options:
    files: str | Annotated[tuple[str, ...], MinLen(1)]
    """The `.npz`, `.npy` or HDF5 file: a path below the data root, absolute, or `./` beside the configuration file."""
    images: str = "images"
    """Name of the array of pixels, in HDF5 with the groups it lies in (`train/images`); a `.npy` file holds one array,
    whatever its name."""
    labels: str = ""
    """Name of the array of labels, whole numbers from 0 on (N,); left out: no labels."""
    classes: tuple[str, ...] = ()
    """Names of the classes in the order of the labels; left out: the numbers from 0 to the largest label."""


def opened(path: Path, images: str = "images") -> Any:
    """The file as a mapping of arrays; HDF5 and `.npy` stay on the disk until they are sliced.

    Args:
        images: the name that the one array of a `.npy` file gets.

    Raises:
        OODError: it is no whole file of these forms.
    """
    if path.suffix in (".h5", ".hdf5") and in_use(path):
        raise OODError(f"{path}: another process has it open to write; wait for that process and run again")
    try:
        if path.suffix in (".h5", ".hdf5"):
            return h5py.File(path, "r")
        loaded = np.load(path, allow_pickle=False, mmap_mode="r" if path.suffix == ".npy" else None)
        return {images: loaded} if isinstance(loaded, np.ndarray) else loaded
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise OODError(f"{path}: not a whole .npz, .npy or HDF5 file ({str(error).splitlines()[0]}); write it again"
                       ) from None


def held(file: Any) -> list[str]:
    """Names of the arrays of a file, those of HDF5 with their groups."""
    if not isinstance(file, h5py.File):
        return list(file)
    names: list[str] = []
    file.visititems(lambda name, entry: names.append(name) if isinstance(entry, h5py.Dataset) else None)
    return names


def array(file: Any, name: str, path: Path, option: str) -> Any:
    """One array of the file, which an option of this reader names.

    Raises:
        OODError: it is not there, or of objects (images of several sizes).
    """
    names = held(file)
    if name.strip("/") not in names:
        raise OODError(f"{path}: no array '{name}'{nearest(name, names)}; it holds {', '.join(names) or 'none'}; name "
                       f"the right one by the option `{option}`")
    try:
        return file[name]
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise OODError(f"{path}: array '{name}' cannot be read ({str(error).splitlines()[0]}); expected one array of "
                       "numbers, so images of one size: bring them to it, or save them as files in a folder") from None


def colour(path: Path, name: str, shape: tuple[int, ...]) -> Callable[[np.ndarray], np.ndarray]:
    """What turns a block of pixels (n, ...) into (n, H, W, 3).

    Raises:
        OODError: another shape.
    """
    if len(shape) not in (3, 4) or not all(shape):
        raise OODError(f"{path}: array '{name}' has shape {shape}, expected {_SHAPES}")
    if len(shape) == 3:
        return lambda block: np.repeat(block[..., None], 3, axis=3)
    if shape[3] == 1:
        return lambda block: np.repeat(block, 3, axis=3)
    if shape[3] == 3:
        return lambda block: block
    if shape[1] == 3:
        return lambda block: np.ascontiguousarray(block.transpose(0, 2, 3, 1))
    raise OODError(f"{path}: array '{name}' has shape {shape}, expected {_SHAPES}")


def scaled(path: Path, name: str, pixels: Any) -> tuple[Callable[[np.ndarray], np.ndarray], list[str]]:
    """What turns a block of pixels into uint8 of the same shape, and what is to be said of it.

    Raises:
        OODError: values that have no meaning as pixels.
    """
    if pixels.dtype == np.uint8:
        return lambda block: block, []
    if pixels.dtype == bool:
        return lambda block: block.astype(np.uint8) * np.uint8(255), []
    what = f"{path}: array '{name}' is {pixels.dtype}"
    if pixels.dtype.kind not in "iuf":
        raise OODError(f"{what}, expected pixels as uint8 {_SHAPES}")
    low, high = _range(pixels)
    if pixels.dtype == np.uint16 and high > 255:
        return lambda block: (block >> 8).astype(np.uint8), [HIGH_BYTE, *([DARK] if high < 4096 else [])]
    if pixels.dtype.kind == "f" and low >= 0 and high <= 1:
        return lambda block: np.rint(block.astype(np.float32) * 255).astype(np.uint8), [TIMES_255]
    hint = "scale them to 0..255 and round"
    if low >= 0 and high <= 255:
        hint = "as pixels in 0..255 they become " + (
            "x.round().astype('uint8')" if pixels.dtype.kind == "f" else "x.astype('uint8')")
    elif pixels.dtype.kind == "f" and low >= -1 and high <= 1:
        hint = "as pixels in -1..1 they become ((x + 1) * 127.5).round().astype('uint8')"
    raise OODError(f"{what} with values from {low:g} to {high:g}, which have no one meaning as pixels; expected uint8, "
                   f"bool, uint16 up to 65,535 or float in 0..1, {_SHAPES}; {hint}")


def _range(pixels: Any) -> tuple[float, float]:
    """The smallest and the largest value; both NaN where one is. Read in blocks: it may lie on the disk."""
    low, high = np.inf, -np.inf
    for start in range(0, len(pixels), BLOCK):
        block = pixels[start:start + BLOCK]
        low, high = np.minimum(low, block.min()), np.maximum(high, block.max())
    return float(low), float(high)


def labelled(path: Path, options: Options, values: np.ndarray, count: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels int64 (N,) and names of the classes.

    Raises:
        OODError: not one whole number from 0 on for each image, or more than there are names.
    """
    if values.shape != (count,) or values.dtype.kind not in "iu":
        raise OODError(f"{path}: labels '{options.labels}' are {values.dtype} {values.shape}, expected whole numbers "
                       f"({count},), one for each image")
    most = len(options.classes) or int(values.max()) + 1
    if values.min() < 0 or values.max() >= most:
        raise OODError(f"{path}: labels '{options.labels}' reach from {values.min()} to {values.max()}, expected 0 to "
                       f"{most - 1}; correct them or `classes`")
    return values.astype(np.int64), options.classes or tuple(map(str, range(most)))


def read(options: Options, root: Path | None) -> Images:
    """The images in their order.

    Raises:
        OODError: a file, array, shape or label that is not as above.
    """
    path = raw_files(options.files, root)[0]
    file = opened(path, options.images)
    pixels = array(file, options.images, path, "images")
    turned = colour(path, options.images, tuple(pixels.shape))
    to_bytes, remarks = scaled(path, options.images, pixels)
    labels, classes = (unlabelled(len(pixels)), ()) if not options.labels else (
        labelled(path, options, np.asarray(array(file, options.labels, path, "labels")), len(pixels)))
    plain = array_blocks(pixels)
    names = Numbered(path.name, np.arange(len(pixels)))
    said = Tally()
    for remark in remarks:
        said.add(remark, names[0], len(pixels))

    def blocks(index: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        for start, block in plain(index):
            yield start, turned(to_bytes(block))

    return Images(labels=labels, names=names, classes=classes, sources={shown(path, root): sha256(path)},
                  blocks=blocks, remarks=said, named="stated" if options.classes else "numbers")
