"""MNIST's format (IDX) of images and labels, as it is or compressed with gzip (LeCun, Cortes, Burges; Fashion-MNIST).

A file is a magic number (0, 0, type, number of dimensions), the dimensions as big-endian 32-bit integers, then the
values; images are uint8 (N, H, W), labels uint8 (N,). Grey images get three equal channels.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from annotated_types import MinLen

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.files import sha256
from workflow_scripts.core.sources import shown
from workflow_scripts.core.specs import ReaderSpec
from workflow_scripts.data.reading import BLOCK, Images, Numbered, raw_files, unlabelled

SPEC = ReaderSpec()


@dataclass(frozen=True)
class Options:
    files: str | Annotated[tuple[str, ...], MinLen(1)]
    """The file of the images: a path or glob below the data root, or a list of alternatives; of several files one after
    the other."""
    label_file: str | Annotated[tuple[str, ...], MinLen(1)] = ""
    """The file of their labels, or as many files; left out: no labels are used."""
    negative: bool = False
    """Black for white: each value v becomes 255 - v."""


def array(path: Path, dimensions: int) -> np.ndarray:
    """Values of an IDX file of bytes. -> uint8 with so many dimensions.

    Raises:
        OODError: it is cut off, or no such file.
    """
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise OODError(f"{path}: cannot be read ({error}); fetch it again") from None
    if content[:3] != b"\0\0\x08" or content[3:4] != bytes([dimensions]):
        raise OODError(f"{path}: no IDX file of bytes with {dimensions} dimensions; expected MNIST's "
                       f"{'images' if dimensions == 3 else 'labels'}")
    shape = np.frombuffer(content, ">i4", dimensions, 4)
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions)
    if values.size != shape.prod(dtype=np.int64):
        raise OODError(f"{path}: {values.size:,} values, its header says {' x '.join(map(str, shape))}; it is cut off "
                       "or damaged: fetch it again")
    return values.reshape(shape)


def read(options: Options, root: Path | None) -> Images:
    """The images of the files, in their order.

    Raises:
        OODError: as :func:`array`; other sizes of images, or another number of labels than of images.
    """
    paths = raw_files(options.files, root)
    parts = [array(path, 3) for path in paths]
    if len({part.shape[1:] for part in parts}) > 1:
        sizes = ", ".join(f"{path.name} {part.shape[2]}x{part.shape[1]}"
                          for path, part in zip(paths, parts, strict=True))
        raise OODError(f"{paths[0].parent}: images of one size expected, found {sizes}")
    grey = parts[0] if len(parts) == 1 else np.concatenate(parts)
    if options.negative:
        grey = 255 - grey
    labels, used = unlabelled(len(grey)), [*paths]
    if options.label_file:
        files = raw_files(options.label_file, root)
        labels = np.concatenate([array(path, 1) for path in files]).astype(np.int64)
        if len(labels) != len(grey):
            raise OODError(f"{', '.join(map(str, files))}: {len(labels):,} labels for {len(grey):,} images of "
                           f"{', '.join(map(str, paths))}; they are of two splits")
        used += files

    def blocks(index: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        for start in range(0, len(index), BLOCK):
            yield start, np.repeat(grey[index[start:start + BLOCK], :, :, None], 3, axis=3)

    classes = tuple(str(i) for i in range(int(labels.max()) + 1)) if options.label_file else ()
    names = Numbered(paths[0].name, np.arange(len(grey))) if len(parts) == 1 else [
        f"{path.name}:{i}" for path, part in zip(paths, parts, strict=True) for i in range(len(part))]
    return Images(labels=labels, names=names, classes=classes, sources={shown(p, root): sha256(p) for p in used},
                  blocks=blocks)
