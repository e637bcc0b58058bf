"""Outlier images for training: a store -> a batch for each step, on the device where the network is.

A store of at most :data:`RESIDENT` bytes is held on the device as uint8. Of a larger one only what the batches need is
ever read, in runs of rows. What a step sees is a function of (seed, epoch, step).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from workflow_scripts.data.augment import augment, normalise
from workflow_scripts.data.long_side import LongSide
from workflow_scripts.data.randomness import permutation
from workflow_scripts.data.rows import CentreCrops
from workflow_scripts.data.store import open_store, pixel_rows
from workflow_scripts.errors import OODError

RESIDENT = 4 * 2**30  # bytes; 1.4 million images of 32x32 (300K Random Images: 0.9 GB, Tiny Images: 244 GB)
CHUNKS = 64  # HDF5 chunks (of 1 MiB) that are in memory at once, and mixed, when a larger store is shuffled
_STREAM = 0x6F75746C  # added to the seed, so that outlier i is not changed in the way of ID image i


class Outliers:
    """Batches of outliers.

    Args:
        pixels: (N, H, W, 3) uint8, a tensor on ``device`` or the HDF5 dataset of a store; or images whose long side
            was kept, of which the recipe's random crop then takes windows.
        batch_size: M.
        order: ``shuffled``: at random, each image at most once in a pass over the set; ``block``: contiguous images
            from a random place in each epoch, the first after the last (as G-OE released).
        seed: of the run.
        device: where batches go.
        source: the store's name, for messages.

    Raises:
        OODError: fewer images than a batch holds.
    """

    def __init__(self, pixels: Tensor | LongSide | h5py.Dataset, batch_size: int, order: str, seed: int,
                 device: torch.device, source: str):
        if len(pixels) < batch_size:
            raise OODError(f"outliers.batch_size: {batch_size} is more than the {len(pixels)} images of {source}; "
                           "lower it or take a larger outlier set")
        self.pixels, self.batch_size, self.order, self.device = pixels, batch_size, order, device
        self.seed, self.source = seed + _STREAM, source

    def __len__(self) -> int:
        return len(self.pixels)

    def batches(self, recipe: dict[str, Any], epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Endless: (M, 3, H, W) inputs, augmented and normalised as `recipe` says, and (M,) int64 image numbers."""
        streamed = isinstance(self.pixels, h5py.Dataset)
        run = self._block if self.order == "block" else self._streamed if streamed else self._shuffled
        for visit, pixels in run(epoch):
            changed = augment(pixels, recipe["augment"], self.seed, epoch, visit)
            yield normalise(changed, recipe["normalise"]), visit % len(self)

    # Each yields (M,) visits and (M, H, W, 3) pixels. A visit is the image number plus N for every earlier pass of the
    # epoch, so that an image seen again is augmented in another way.

    def _shuffled(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Pass after pass, each in an order of its own; the last, smaller batch of a pass is dropped."""
        turn = 0
        while True:
            order = permutation(self.seed + turn, epoch, len(self)).to(self.device)
            for index in order.split(self.batch_size)[:len(self) // self.batch_size]:
                yield index + turn * len(self), self.pixels[index]
            turn += 1

    def _block(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """From a random place on, round and round."""
        start = int(np.random.default_rng((self.seed, epoch)).integers(len(self)))
        while True:
            visit = torch.arange(start, start + self.batch_size, device=self.device)
            if not isinstance(self.pixels, h5py.Dataset):
                yield visit, self.pixels[visit % len(self)]
                start += self.batch_size
                continue
            first = start % len(self)
            over = max(0, first + self.batch_size - len(self))
            parts = [self._rows(first, first + self.batch_size - over)] + ([self._rows(0, over)] if over else [])
            yield visit, torch.cat(parts)
            start += self.batch_size

    def _streamed(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Random HDF5 chunks, mixed :data:`CHUNKS` at a time; what of a mixture fills no batch is dropped."""
        size = self.pixels.chunks[0] if self.pixels.chunks else self.batch_size
        starts = torch.arange(0, len(self), size)
        together = max(CHUNKS, -(-self.batch_size // size) + 1)  # one more: the store's last chunk may be short
        turn = 0
        while True:
            for number, chosen in enumerate(starts[permutation(self.seed + turn, epoch, len(starts))].split(together)):
                spans = [(start, min(start + size, len(self))) for start in chosen.tolist()]
                pixels = torch.cat([self._rows(*span) for span in spans])
                visit = torch.cat([torch.arange(*span) for span in spans]).to(self.device) + turn * len(self)
                mixed = permutation(self.seed + turn, (number + 1) << 32 | epoch, len(visit)).to(self.device)
                for part in mixed.split(self.batch_size)[:len(visit) // self.batch_size]:
                    yield visit[part], pixels[part]
            turn += 1

    def _rows(self, start: int, stop: int) -> Tensor:
        """Rows start..stop-1 on the device. Raises OODError when the store cannot be read there."""
        try:
            return torch.as_tensor(self.pixels[start:stop]).to(self.device)
        except OSError as error:
            raise OODError(f"{self.source}: images {start}..{stop - 1} cannot be read, the store is damaged ({error}); "
                           "delete it and run again") from None


def load_outliers(path: str, section: dict[str, Any], seed: int, device: torch.device,
                  shape: tuple[int, ...]) -> Outliers:
    """The outliers of a store; a large one stays open for reading.

    Args:
        path: image store.
        section: the recipe's `outliers`: batch_size, order.
        seed: of the run.
        device: where the network is.
        shape: (H, W, 3) of the ID images.

    Raises:
        OODError: the store is none, holds network inputs, images of another size, or fewer than a batch.
    """
    with open_store(path) as file:
        if "inputs" in file:
            raise OODError(f"{path} holds ready network inputs (a noise set); outliers to train on are images")
        if "numbers" in file:
            raise OODError(f"{path} stores no pixels (pixels: decoded); outliers to train on are stored images, give "
                           "the dataset a geometry such as short32")
        stored = pixel_rows(file)
        if stored.shape[1:] != shape:
            raise OODError(f"{path}: outliers of {stored.shape[2]}x{stored.shape[1]} pixels, ID images of "
                           f"{shape[1]}x{shape[0]}; give the outlier dataset the geometry of the ID set")
        pixels = None
        if isinstance(stored, CentreCrops):  # a larger set stays in the host's memory
            pixels = LongSide.of(stored, device, resident=len(stored.flat) <= RESIDENT)
        elif stored.size <= RESIDENT:
            pixels = torch.from_numpy(stored[:]).to(device)
    if pixels is None:
        pixels = h5py.File(path, "r")["images"]
    return Outliers(pixels, section["batch_size"], section["order"], seed, device, path)
