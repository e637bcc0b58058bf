"""What is noticed of images when their store is written: a hash of each, images of one colour, values 0 and 1."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

import numpy as np

from workflow_scripts.core.errors import OODError
from workflow_scripts.data.tally import Tally


def file_hashes(files: Iterable[bytes], count: int) -> np.ndarray:
    """A hash of each image file. -> uint64 (``count``,)"""
    digests = (hashlib.blake2b(content, digest_size=8).digest() for content in files)
    return np.frombuffer(b"".join(digests), "<u8", count).astype(np.uint64, copy=False)


class Seen:
    """Told of every block of pixels as it is stored.

    Args:
        count: images of the set.
    """

    def __init__(self, count: int) -> None:
        self.hashes = np.zeros(count, np.uint64)
        """Of each image's shape and pixels; images are taken to be identical where they agree (64 bits: of ten million
        images two different ones agree with a chance of 3 in a million)."""
        self._plain: list[int] = []
        self._most, self._bytes = 0, False

    def block(self, start: int, block: np.ndarray) -> None:
        """Images ``start``, ``start`` + 1, ...: (n, H, W, 3) uint8, or (n, 3, H, W) float32."""
        rows = np.ascontiguousarray(block).reshape(len(block), -1)
        shape = np.array(block.shape[1:], "<i4").tobytes()
        hashes = [hashlib.blake2b(row, digest_size=8, salt=shape).digest() for row in rows]
        self.hashes[start:start + len(block)] = np.frombuffer(b"".join(hashes), "<u8")
        if block.dtype == np.uint8:
            high = rows.max(axis=1)
            self._most, self._bytes = max(self._most, int(high.max())), True
            self._plain += (start + np.flatnonzero(high == rows.min(axis=1))).tolist()

    def judge(self, name: Callable[[int], str], remarks: Tally) -> None:
        """Say what was noticed.

        Args:
            name: of an image, by its number.
            remarks: counts images of one colour.

        Raises:
            OODError: no value of the whole set is above 1, and some are 1.
        """
        if self._bytes and self._most == 1:
            raise OODError(f"all values of the {len(self.hashes):,} images are 0 or 1, of 255: they would all but be "
                           "black; if 0 is black and 1 is white, multiply them by 255 (or save them as bool)")
        for number in self._plain:
            remarks.add("images of one colour", name(number))
