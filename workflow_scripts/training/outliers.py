"""Outlier images for training: a store -> a batch for each step, on the device where the network is.

A store of at most :data:`RESIDENT` bytes is held on the device as uint8. Of a larger one the images of a batch are read
when they are needed, a few batches ahead, each on its own: the order is the same whatever the size. What a step sees is
a function of (seed, epoch, step).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count, islice

import h5py
import numpy as np
import torch
from torch import Tensor

from workflow_scripts.core.errors import OODError
from workflow_scripts.data.images.augment import augment, normalise
from workflow_scripts.data.images.long_side import LongSide
from workflow_scripts.data.images.randomness import permutation
from workflow_scripts.data.images.rows import CentreCrops
from workflow_scripts.data.images.scattered import ScatteredRows
from workflow_scripts.data.images.store import open_store, pixel_rows
from workflow_scripts.methods.recipe import OutlierBatches, Recipe

RESIDENT = 4 * 2**30  # bytes; 1.4 million images of 32x32 (300K Random Images: 0.9 GB, Tiny Images: 244 GB)
AHEAD = 4  # batches that are read, each by a thread, while the network trains
_STREAM = 0x6F75746C  # added to the seed, so that outlier i is not changed in the way of ID image i


class Outliers:
    """Batches of outliers.

    Args:
        pixels: (N, H, W, 3) uint8, a tensor on ``device`` or the HDF5 dataset of a store; or images whose long side
            was kept, of which the recipe's random crop then takes windows.
        batch_size: M.
        order: ``cycle``: pass after pass over the set, each in an order of its own, and an epoch goes on where the one
            before stopped (as background data resampling released); ``shuffled``: each epoch begins a new pass;
            ``block``: contiguous images from a random place in each epoch, the first after the last (as G-OE released).
            Of a pass the last, smaller batch is dropped.
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
        self.scattered = ScatteredRows(pixels) if isinstance(pixels, h5py.Dataset) else None
        self._pass: tuple[tuple[int, int], Tensor] | None = None

    def __len__(self) -> int:
        return self.total if self.kept is None else len(self.kept)

    def batches(self, recipe: Recipe, epoch: int, start: int = 0, order: Tensor | None = None,
                steps: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Endless: (M, 3, H, W) inputs, augmented and normalised as `recipe` says, and (M,) int64 image numbers.

        Args:
            start: batches to leave out.
            order: numbers of the epoch's images, drawn elsewhere; ``None``: as ``order`` of the set says.
            steps: batches of an epoch; needed where the set's ``order`` is ``cycle``.
        """
        if order is not None:
            run = self._drawn(order, start)
        elif self.order == "block":
            run = self._block(epoch, start)
        elif self.order == "cycle":
            run = self._passes(0, epoch * steps + start)
        else:
            run = self._passes(epoch, start)
        for visit, pixels in self._loaded(run):
            changed = augment(pixels, recipe.augment, self.seed, epoch, visit)
            yield normalise(changed, recipe.normalise), visit % self.total

    # Each of these yields (M,) visits and (M,) places among the kept images, on CPU. A visit is the image number plus a
    # multiple of the set's size, another one every time an epoch sees the image, so that it is then augmented in
    # another way.

    def _drawn(self, order: Tensor, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The numbers of ``order``, with repetitions, round and round."""
        parts = order.split(self.batch_size)[:len(order) // self.batch_size]
        for step in count(start):
            turn, place = divmod(step, len(parts))
            at = torch.arange(self.batch_size) + place * self.batch_size + turn * len(order)
            yield parts[place] + at * self.total, self._places(parts[place])

    def _passes(self, epoch: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Pass after pass, each in an order of its own; the last, smaller batch of a pass is dropped."""
        whole = len(self) // self.batch_size
        for step in count(start):
            turn, place = divmod(step, whole)
            places = self._order(turn, epoch)[place * self.batch_size:(place + 1) * self.batch_size]
            yield self._visits(places, turn), places

    def _order(self, turn: int, epoch: int) -> Tensor:
        """Places in the order of a pass; the last one is kept, since that of 80 million images takes seconds."""
        if self._pass is None or self._pass[0] != (turn, epoch):
            self._pass = (turn, epoch), permutation(self.seed + turn, epoch, len(self))
        return self._pass[1]

    def _block(self, epoch: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """From a random place on, round and round."""
        first = int(np.random.default_rng((self.seed, epoch)).integers(len(self)))
        for step in count(start):
            places = torch.arange(self.batch_size) + first + step * self.batch_size
            yield self._visits(places % len(self), places // len(self)), places % len(self)

    def _loaded(self, run: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor | LongSide]]:
        """Visits of each batch on the device, and its pixels (M, H, W, 3); those whose long side was kept are still to
        be cut."""
        if self.scattered is None:
            for visits, places in run:
                yield (visits.to(self.device, non_blocking=True),
                       self.pixels[places.to(self.device, non_blocking=True)])
            return
        with ThreadPoolExecutor(AHEAD) as readers:
            waiting = deque((visits, readers.submit(self._read, places)) for visits, places in islice(run, AHEAD))
            for visits, places in run:
                seen, pixels = waiting.popleft()
                waiting.append((visits, readers.submit(self._read, places)))
                yield seen.to(self.device, non_blocking=True), pixels.result().to(self.device, non_blocking=True)

    def _read(self, places: Tensor) -> Tensor:
        """Images at these places of the kept ones, out of the file. A run of neighbours is read through HDF5, which
        compares checksums; single images are not its affair."""
        numbers = self._numbers(places)
        if self.order == "block" and self.kept is None:
            jumps = torch.nonzero(numbers.diff() != 1).flatten().tolist()
            bounds = [0, *(jump + 1 for jump in jumps), len(numbers)]
            return torch.cat([self._rows(int(numbers[a]), int(numbers[b - 1]) + 1)
                              for a, b in zip(bounds[:-1], bounds[1:], strict=True)])
        numbers, back = numbers.unique(return_inverse=True)
        return torch.from_numpy(self.scattered[numbers.numpy()])[back]

    def _numbers(self, places: Tensor) -> Tensor:
        """Image numbers in the store of these places of the kept ones."""
        return places if self.kept is None else self.kept[places]

    def _places(self, numbers: Tensor) -> Tensor:
        """The first places of the kept ones that hold these image numbers or larger ones."""
        return numbers if self.kept is None else torch.searchsorted(self.kept, numbers)

    def _visits(self, places: Tensor, turn: int | Tensor) -> Tensor:
        return self._numbers(places) + turn * self.total

    def _rows(self, start: int, stop: int) -> Tensor:
        """Rows start..stop-1. Raises OODError when the store cannot be read there."""
        try:
            return torch.as_tensor(self.pixels[start:stop])
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
