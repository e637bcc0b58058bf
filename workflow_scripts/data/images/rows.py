"""Stores whose pixels are not an array (N, H, W, 3), seen as one: for evaluation, features, cards and export.

:class:`CentreCrops`: images whose long side was kept, as the central squares of them. :class:`Encoded`: images that are
decoded from their archive when they are read. Both are indexed with a slice or an array of numbers and give uint8
(n, side, side, 3), like an HDF5 dataset.
"""

from __future__ import annotations

import io
import os
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, cached_property
from typing import Any

import numpy as np
from PIL import Image

from workflow_scripts.core.errors import OODError
from workflow_scripts.data.archives.lmdb_store import Archive
from workflow_scripts.data.decoding import as_rgb
from workflow_scripts.data.images.geometry import fit, side
from workflow_scripts.data.reading import threads

_GAP = 2**20  # bytes between two images that are rather read than skipped
_BLOCKS = 16  # images' memory that Pillow keeps for the next ones


def _numbers(key: slice | Any, count: int) -> np.ndarray:
    """The rows that an index means. -> int64 (n,)."""
    return np.arange(*key.indices(count)) if isinstance(key, slice) else np.asarray(key, np.int64)


class CentreCrops:
    """N images of one shorter side, each as its central square (``cropN`` of the same image).

    Args:
        flat: their bytes one after another, an array or HDF5 dataset.
        offsets: int64 (N,), where each begins.
        widths, heights: int64 (N,).
        side: the shorter side.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, flat: Any, offsets: np.ndarray, widths: np.ndarray, heights: np.ndarray, side: int) -> None:
        self.flat, self.side = flat, side
        self.offsets, self.widths, self.heights = (x.astype(np.int64) for x in (offsets, widths, heights))

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self), self.side, self.side, 3

    def only(self, index: np.ndarray) -> CentreCrops:
        """These images alone, their bytes in memory; read a few MB at a time. ``index``: int64 (n,)."""
        sizes = (self.widths * self.heights)[index]
        offsets = np.concatenate([[0], sizes.cumsum()])
        flat = np.empty((offsets[-1], 3), np.uint8)
        step = max(1, _GAP // (3 * int(sizes.mean()) or 1)) if len(index) else 1
        for start in range(0, len(index), step):
            part = index[start:start + step]
            first, count = self.offsets[part], sizes[start:start + step]
            begin = first.min()
            piece = np.asarray(self.flat[begin:(first + 3 * count).max()]).reshape(-1, 3)
            within = np.arange(count.sum()) - np.repeat(count.cumsum() - count, count)
            flat[offsets[start]:offsets[start] + count.sum()] = piece[np.repeat((first - begin) // 3, count) + within]
        return CentreCrops(flat.reshape(-1), offsets[:-1] * 3, self.widths[index], self.heights[index], self.side)

    def __getitem__(self, key: slice | np.ndarray) -> np.ndarray:
        index = _numbers(key, len(self))
        out = np.empty((len(index), self.side, self.side, 3), np.uint8)
        order = np.argsort(self.offsets[index], kind="stable")
        starts = self.offsets[index][order]
        ends = starts + (self.widths * self.heights)[index][order] * 3
        for run in np.split(np.arange(len(order)), np.flatnonzero(starts[1:] - ends[:-1] > _GAP) + 1):
            if len(run):
                piece = np.asarray(self.flat[starts[run[0]]:ends[run].max()]).reshape(-1, 3)
                out[order[run]] = self._cut(piece, index[order[run]], (starts[run] - starts[run[0]]) // 3)
        return out

    def _cut(self, pixels: np.ndarray, index: np.ndarray, first: np.ndarray) -> np.ndarray:
        width, height = self.widths[index], self.heights[index]
        # Python's rounding, to even, as in `fit`
        top, left = (np.rint((extent - self.side) / 2).astype(np.int64) for extent in (height, width))
        start = (first + top * width + left)[:, None, None]
        line = np.arange(self.side)
        return pixels[start + line[:, None] * width[:, None, None] + line]


class Encoded:
    """N images of an archive, decoded and resized when they are read, by several threads.

    While a slice is used, the one after it is being decoded.

    Args:
        path: LMDB file of the pack stage.
        numbers: int64 (N,), their numbers in it.
        geometry: of a fixed size, e.g. ``resize256crop224``.

    Raises:
        OODError: no such archive; when read, an image that cannot be decoded.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, path: str | os.PathLike, numbers: np.ndarray, geometry: str) -> None:
        self.archive, self.numbers, self.geometry, self.side = Archive(path), numbers, geometry, side(geometry)
        self._ahead: dict[int, Future] = {}

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self), self.side, self.side, 3

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(threads())

    def _one(self, row: int) -> np.ndarray:
        return np.asarray(fit(decoded(self.archive, int(self.numbers[row])), self.geometry))

    def __getitem__(self, key: slice | np.ndarray) -> np.ndarray:
        index = _numbers(key, len(self)).tolist()
        waiting = [self._ahead.pop(row, None) or self._pool.submit(self._one, row) for row in index]
        after = range(index[-1] + 1, min(index[-1] + 1 + len(index), len(self))) if isinstance(key, slice) and index \
            else range(0)
        self._ahead = {row: self._pool.submit(self._one, row) for row in after}
        out = np.empty((len(index), self.side, self.side, 3), np.uint8)
        for row, future in enumerate(waiting):
            out[row] = future.result()
        return out


@cache
def _keep_memory() -> None:
    """Let Pillow reuse the memory of decoded images (its PILLOW_BLOCKS_MAX); by default it gives each image's back to
    the system, which zeroes every page of it for the next: 881 against 770 images of 500x375 per CPU second (n = 500,
    two cores of an AMD EPYC)."""
    if hasattr(Image.core, "set_blocks_max"):
        Image.core.set_blocks_max(_BLOCKS)


def decoded(archive: Archive, number: int) -> Image.Image:
    """An image of an archive in RGB; one that is RGB already is not copied.

    Raises:
        OODError: it cannot be decoded.
    """
    content = archive.read(number)
    _keep_memory()
    try:
        return as_rgb(Image.open(io.BytesIO(content)))
    except OODError as error:
        raise OODError(f"{archive.path}: image {number} ({archive.names[number]}): {error}") from None
    except Exception as error:  # PIL's decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        raise OODError(f"{archive.path}: image {number} ({archive.names[number]}) cannot be decoded "
                       f"({type(error).__name__}: {error})") from None
