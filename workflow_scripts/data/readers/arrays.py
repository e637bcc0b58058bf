"""Images and labels as arrays: NumPy's `.npz`, or HDF5 (`.h5`, `.hdf5`).

Pixels are uint8, grey (N, H, W) or (N, H, W, 1), or colour (N, H, W, 3) or (N, 3, H, W). Nothing is unpickled.
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
from workflow_scripts.data.reading import Images, Numbered, array_blocks, raw_files, unlabelled

SPEC = ReaderSpec()


@dataclass(frozen=True)
class Options:
    files: str | Annotated[tuple[str, ...], MinLen(1)]
    """The `.npz` or HDF5 file: a path below the data root, absolute, or `./` beside the configuration file."""
    images: str = "images"
    """Name of the array of pixels."""
    labels: str = ""
    """Name of the array of labels, whole numbers from 0 on (N,); left out: no labels."""
    classes: tuple[str, ...] = ()
    """Names of the classes in the order of the labels; left out: the numbers from 0 to the largest label."""


def opened(path: Path) -> Any:
    """The file as a mapping of arrays; HDF5 stays on the disk until it is sliced.

    Raises:
        OODError: it is no whole file of either form.
    """
    if path.suffix in (".h5", ".hdf5") and in_use(path):
        raise OODError(f"{path}: another process has it open to write; wait for that process and run again")
    try:
        return h5py.File(path, "r") if path.suffix in (".h5", ".hdf5") else np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise OODError(f"{path}: not a whole .npz or HDF5 file ({str(error).splitlines()[0]}); write it again"
                       ) from None


def array(file: Any, name: str, path: Path) -> Any:
    """One array of the file. Raises OODError when it is not there, or of objects (images of several sizes)."""
    names = [key for key in file if hasattr(file, "files") or isinstance(file[key], h5py.Dataset)]
    if name not in names:
        raise OODError(f"{path}: no array '{name}'{nearest(name, names)}; it holds {', '.join(names) or 'none'}; name "
                       "it by the options `images` and `labels`")
    try:
        return file[name]
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise OODError(f"{path}: array '{name}' cannot be read ({str(error).splitlines()[0]}); expected one array of "
                       "numbers, so images of one size: bring them to it, or save them as files in a folder") from None


def colour(path: Path, name: str, pixels: Any) -> Callable[[np.ndarray], np.ndarray]:
    """What turns a block of ``pixels`` into uint8 (n, H, W, 3).

    Raises:
        OODError: another type or shape.
    """
    expected = "uint8 (N, H, W), (N, H, W, 1), (N, H, W, 3) or (N, 3, H, W)"
    shape = tuple(pixels.shape)
    if pixels.dtype != np.uint8:
        hint = "; values 0..1 become (x * 255).round().astype('uint8')" if pixels.dtype.kind == "f" else ""
        raise OODError(f"{path}: array '{name}' is {pixels.dtype}, expected pixels as {expected}{hint}")
    if len(shape) not in (3, 4) or not all(shape):
        raise OODError(f"{path}: array '{name}' has shape {shape}, expected {expected}")
    if len(shape) == 3:
        return lambda block: np.repeat(block[..., None], 3, axis=3)
    if shape[3] == 1:
        return lambda block: np.repeat(block, 3, axis=3)
    if shape[3] == 3:
        return lambda block: block
    if shape[1] == 3:
        return lambda block: np.ascontiguousarray(block.transpose(0, 2, 3, 1))
    raise OODError(f"{path}: array '{name}' has shape {shape}, expected {expected}")


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
    file = opened(path)
    pixels = array(file, options.images, path)
    turned = colour(path, options.images, pixels)
    labels, classes = (unlabelled(len(pixels)), ()) if not options.labels else (
        labelled(path, options, np.asarray(array(file, options.labels, path)), len(pixels)))
    plain = array_blocks(pixels)

    def blocks(index: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        for start, block in plain(index):
            yield start, turned(block)

    return Images(labels=labels, names=Numbered(path.name, np.arange(len(pixels))), classes=classes,
                  sources={shown(path, root): sha256(path)}, blocks=blocks)
