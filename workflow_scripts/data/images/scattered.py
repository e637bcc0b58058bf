"""Single rows of a stored array, wherever they lie, without the HDF5 chunks around them.

HDF5 reads a chunk (1 MiB, 341 images of 32x32) for any row of it. Chunks of a store are not compressed, so a row is a
piece of the file at a place that is known: here that piece is read and no more. The chunk's checksum is not: it is over
the whole chunk.
"""

from __future__ import annotations

import os

import h5py
import numpy as np

from workflow_scripts.core.errors import OODError


class ScatteredRows:
    """Rows of an array in an HDF5 file. May be read by several threads at once.

    Args:
        rows: the array; chunked along its first axis only, or contiguous.

    Raises:
        OODError: its chunks are compressed or shuffled, or some were never written.
    """

    def __init__(self, rows: h5py.Dataset):
        self.name, self.shape, self.dtype = rows.file.filename, rows.shape, rows.dtype
        self.bytes = rows[:1].nbytes
        """Of a row."""
        if rows.compression or rows.shuffle or (rows.chunks and rows.chunks[1:] != rows.shape[1:]):
            raise OODError(f"{self.name}: {rows.name} is not stored as the prepare stage stores it (rows in chunks "
                           "that are not compressed); delete it and run again")
        self.per_chunk = rows.chunks[0] if rows.chunks else len(rows)
        starts = np.full(-(-len(rows) // self.per_chunk), -1, np.int64)
        if rows.chunks:
            rows.id.chunk_iter(lambda chunk: starts.__setitem__(chunk.chunk_offset[0] // self.per_chunk,
                                                                chunk.byte_offset))
        else:
            starts[0] = rows.id.get_offset()
        if (starts < 0).any():
            raise OODError(f"{self.name}: images from {int(starts.argmin()) * self.per_chunk} on were never written; "
                           "delete it and run again")
        self.starts = starts
        """Where each chunk begins in the file."""
        self.file = open(self.name, "rb", buffering=0)  # noqa: SIM115  open as long as this object lives
        if hasattr(os, "posix_fadvise"):  # or the system reads ahead
            os.posix_fadvise(self.file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, numbers: np.ndarray) -> np.ndarray:
        """Rows of these numbers, ascending int64 (n,). Neighbours in the file are read together.

        Raises:
            OODError: the file ends before, or cannot be read.
        """
        places = self.starts[numbers // self.per_chunk] + numbers % self.per_chunk * self.bytes
        out = np.empty((len(numbers), *self.shape[1:]), self.dtype)
        first = np.flatnonzero(np.diff(places, prepend=-1) != self.bytes).tolist()
        for start, stop in zip(first, [*first[1:], len(places)], strict=True):
            out[start:stop] = self._piece(int(places[start]), stop - start, int(numbers[start]))
        return out

    def _piece(self, place: int, count: int, number: int) -> np.ndarray:
        """``count`` rows from a place of the file on. ``number``: of the first, for messages."""
        try:
            piece = os.pread(self.file.fileno(), count * self.bytes, place)
        except OSError as error:
            raise OODError(f"{self.name}: image {number} cannot be read ({error})") from None
        if len(piece) < count * self.bytes:
            raise OODError(f"{self.name}: image {number} lies beyond the end of the file, the store is damaged; delete "
                           "it and run again")
        return np.frombuffer(piece, self.dtype).reshape(count, *self.shape[1:])
