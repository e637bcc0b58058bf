"""Outlier images for training: a store -> a batch for each step, on the device where the network is.

A store of at most :data:`RESIDENT` bytes is held on the device as uint8. Of a larger one only what the batches need is
ever read, in runs of rows. What a step sees is a function of (seed, epoch, step).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import h5py
import numpy as np
import torch
from torch import Tensor

from workflow_scripts.core.errors import OODError
from workflow_scripts.data.images.augment import augment, normalise
from workflow_scripts.data.images.long_side import LongSide
from workflow_scripts.data.images.randomness import permutation
from workflow_scripts.data.images.rows import CentreCrops
from workflow_scripts.data.images.store import open_store, pixel_rows
from workflow_scripts.methods.recipe import OutlierBatches, Recipe

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
        kept: ascending numbers of the images to use, where a selection leaves some out; of a tensor they are its rows.

    Raises:
        OODError: fewer images than a batch holds.
    """

    def __init__(self, pixels: Tensor | LongSide | h5py.Dataset, batch_size: int, order: str, seed: int,
                 device: torch.device, source: str, kept: Tensor | None = None, total: int | None = None):
        self.total = len(pixels) if total is None else total
        self.kept = kept
        if len(self) < batch_size:
            raise OODError(f"outliers.batch_size: {batch_size} is more than the {len(self)} images of {source}; "
                           f"lower it or take a larger set{'' if kept is None else ' or outliers.select.ratio'}")
        self.pixels, self.batch_size, self.order, self.device = pixels, batch_size, order, device
        self.seed, self.source = seed + _STREAM, source
        self.resident = not isinstance(pixels, h5py.Dataset)

    def __len__(self) -> int:
        return self.total if self.kept is None else len(self.kept)

    def batches(self, recipe: Recipe, epoch: int, start: int = 0,
                order: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Endless: (M, 3, H, W) inputs, augmented and normalised as `recipe` says, and (M,) int64 image numbers.

        Args:
            start: batches to leave out.
            order: numbers of the epoch's images, drawn elsewhere; ``None``: as ``order`` of the set says.
        """
        run = (self._drawn(order) if order is not None else self._block(epoch) if self.order == "block" else
               self._shuffled(epoch) if self.resident else self._streamed(epoch))
        for visit, pixels in islice(run, start, None):
            changed = augment(pixels, recipe.augment, self.seed, epoch, visit)
            yield normalise(changed, recipe.normalise), visit % self.total

    # Each yields (M,) visits and (M, H, W, 3) pixels. A visit is the image number plus a multiple of the set's size,
    # another one every time an epoch sees the image, so that it is then augmented in another way.

    def _drawn(self, order: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """The numbers of ``order``, with repetitions, round and round."""
        turn = 0
        while True:
            for place, numbers in enumerate(order.split(self.batch_size)[:len(order) // self.batch_size]):
                at = torch.arange(len(numbers)) + place * self.batch_size + turn * len(order)
                yield (numbers + at * self.total).to(self.device), self._at(self._places(numbers))
            turn += 1

    def _shuffled(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Pass after pass, each in an order of its own; the last, smaller batch of a pass is dropped."""
        turn = 0
        while True:
            order = permutation(self.seed + turn, epoch, len(self))
            for places in order.split(self.batch_size)[:len(self) // self.batch_size]:
                yield self._visits(places, turn), self._at(places)
            turn += 1

    def _block(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """From a random place on, round and round."""
        start = int(np.random.default_rng((self.seed, epoch)).integers(len(self)))
        while True:
            places = torch.arange(start, start + self.batch_size)
            turn, places = places // len(self), places % len(self)
            if self.resident:
                yield self._visits(places, turn), self._at(places)
                start += self.batch_size
                continue
            first = start % len(self)
            over = max(0, first + self.batch_size - len(self))
            parts = [self._span(first, first + self.batch_size - over)] + ([self._span(0, over)] if over else [])
            yield self._visits(places, turn), torch.cat(parts)
            start += self.batch_size

    def _streamed(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Random HDF5 chunks, mixed :data:`CHUNKS` at a time; what of a mixture fills no batch is dropped."""
        size = self.pixels.chunks[0] if self.pixels.chunks else self.batch_size
        occupied = torch.arange(-(-self.total // size)) if self.kept is None else (self.kept // size).unique()
        together = max(CHUNKS, -(-self.batch_size // (size * len(self) // self.total or 1)) + 1)
        turn = 0
        while True:
            order = permutation(self.seed + turn, epoch, len(occupied))
            for number, chosen in enumerate((occupied[order] * size).split(together)):
                spans = [(start, min(start + size, self.total)) for start in chosen.tolist()]
                parts = [torch.arange(*self._places(torch.tensor(span)).tolist()) for span in spans]
                pixels = torch.cat([self._rows(*span)[(self._numbers(part) - span[0]).to(self.device)]
                                    for span, part in zip(spans, parts, strict=True)])
                places = torch.cat(parts)
                mixed = permutation(self.seed + turn, (number + 1) << 32 | epoch, len(places))
                for part in mixed.split(self.batch_size)[:len(places) // self.batch_size]:
                    yield self._visits(places[part], turn), pixels[part.to(self.device)]
            turn += 1

    def _numbers(self, places: Tensor) -> Tensor:
        """Image numbers in the store of these places of the kept ones."""
        return places if self.kept is None else self.kept[places]

    def _places(self, numbers: Tensor) -> Tensor:
        """The first places of the kept ones that hold these image numbers or larger ones."""
        return numbers if self.kept is None else torch.searchsorted(self.kept, numbers)

    def _visits(self, places: Tensor, turn: int | Tensor) -> Tensor:
        return (self._numbers(places) + turn * self.total).to(self.device)

    def _at(self, places: Tensor) -> Tensor | LongSide:
        """Images at these places of the kept ones; those whose long side was kept are still to be cut."""
        if self.resident:
            return self.pixels[places.to(self.device)]
        numbers, back = self._numbers(places).unique(return_inverse=True)
        size = self.pixels.chunks[0] if self.pixels.chunks else 1
        starts, counts = (numbers // size * size).unique_consecutive(return_counts=True)
        rows = [self._rows(start, min(start + size, self.total))[(part - start).to(self.device)]
                for start, part in zip(starts.tolist(), numbers.split(counts.tolist()), strict=True)]
        return torch.cat(rows)[back.to(self.device)]

    def _span(self, start: int, stop: int) -> Tensor:
        """Images at places start..stop-1 of the kept ones."""
        if self.kept is None:
            return self._rows(start, stop)
        return self._at(torch.arange(start, stop))

    def _rows(self, start: int, stop: int) -> Tensor:
        """Rows start..stop-1 on the device. Raises OODError when the store cannot be read there."""
        try:
            return torch.as_tensor(self.pixels[start:stop]).to(self.device)
        except OSError as error:
            raise OODError(f"{self.source}: images {start}..{stop - 1} cannot be read, the store is damaged ({error}); "
                           "delete it and run again") from None


def load_outliers(path: str, section: OutlierBatches, seed: int, device: torch.device,
                  shape: tuple[int, ...], selection: str | None = None) -> Outliers:
    """The outliers of a store; a large one stays open for reading.

    Args:
        path: image store.
        section: the recipe's `outliers`.
        seed: of the run.
        device: where the network is.
        shape: (H, W, 3) of the ID images.
        selection: file of the numbers of the images to use; ``None``: all.

    Raises:
        OODError: the store is none, holds network inputs, images of another size, or fewer than a batch; the selection
            was made for another store.
    """
    with open_store(path) as file:
        if "inputs" in file:
            raise OODError(f"{path} holds ready network inputs (a noise set); outliers to train on are images")
        if "numbers" in file:
            raise OODError(f"{path} stores no pixels (pixels: decoded); outliers to train on are stored images, give "
                           "the dataset a geometry such as short32")
        stored = pixel_rows(file)
        total = len(stored)
        if stored.shape[1:] != shape:
            raise OODError(f"{path}: outliers of {stored.shape[2]}x{stored.shape[1]} pixels, ID images of "
                           f"{shape[1]}x{shape[0]}; give the outlier dataset the geometry of the ID set")
        kept = read_selection(selection, total, path) if selection else None
        rows = total if kept is None else len(kept)
        pixels = None
        if isinstance(stored, CentreCrops):  # a larger set stays in the host's memory
            stored = stored if kept is None else stored.only(kept)
            pixels = LongSide.of(stored, device, resident=len(stored.flat) <= RESIDENT)
        elif rows * stored[:1].nbytes <= RESIDENT:
            pixels = torch.from_numpy(stored[:] if kept is None else _gather(stored, kept)).to(device)
    if pixels is None:
        pixels = h5py.File(path, "r")["images"]
    return Outliers(pixels, section.batch_size, section.order, seed, device, path,
                    None if kept is None else torch.from_numpy(kept), total)


def read_selection(path: str, total: int, store: str) -> np.ndarray:
    """Numbers of the selected images, ascending int64. Raises OODError when they are of a set of another size."""
    with h5py.File(path, "r") as file:
        kept, of = file["kept"][:], int(file.attrs["images"])
    if of != total:
        raise OODError(f"{path}: selected out of {of:,} images, but {store} has {total:,}; delete it and run again")
    return kept


def _gather(stored: h5py.Dataset, kept: np.ndarray) -> np.ndarray:
    """Rows ``kept`` (ascending) of a dataset, read in runs of 64 MiB."""
    out = np.empty((len(kept), *stored.shape[1:]), stored.dtype)
    step = max(1, 2**26 // stored[:1].nbytes)
    for start in range(0, len(stored), step):
        a, b = np.searchsorted(kept, (start, start + step))
        if a < b:
            out[a:b] = stored[start:start + step][kept[a:b] - start]
    return out
