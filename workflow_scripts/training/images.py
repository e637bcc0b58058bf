"""The ID images of a training: resident on the device, or decoded from their archive in each epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from workflow_scripts.core.changes import Normalise, RandomResizedCrop, Step
from workflow_scripts.core.errors import OODError
from workflow_scripts.data.images.augment import augment, normalise
from workflow_scripts.data.images.dataset import Decoded, Order, loader
from workflow_scripts.data.images.long_side import LongSide
from workflow_scripts.data.images.rows import CentreCrops, Encoded
from workflow_scripts.data.images.store import Store
from workflow_scripts.networks.memory import check_room
from workflow_scripts.training.ranks import ALONE, Ranks
from workflow_scripts.training.resident import resident
from workflow_scripts.training.tokens import Tokens


@dataclass(frozen=True)
class Images:
    """A labelled set that lives on the device.

    ``pixels[index]`` are the images of these numbers as they are evaluated; :meth:`batches` gives them as they are
    trained on.
    """

    pixels: Tensor | LongSide
    """(N, H, W, 3) uint8, or images whose long side was kept."""
    labels: Tensor
    """(N,) int64."""
    masks: Tensor | None = None
    """(N, h, w) integers: pseudo-masks, 0 for background and c + 1 for class c; ``None`` where there are none."""

    @cached_property
    def host_labels(self) -> Tensor:
        """``labels`` on the CPU."""
        return self.labels.cpu()

    def inputs(self, images: Tensor | LongSide, how: Normalise) -> Tensor:
        """Network inputs of images of this set; of those whose long side was kept the centre. ``how``: `normalise`."""
        return normalise(images.centre() if isinstance(images, LongSide) else images, how)

    def batches(self, parts: Sequence[Tensor], steps: Sequence[Step], seed: int, epoch: int,
                ) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch, or of the rest of one.

        Args:
            parts: (B,) int64 image numbers of each batch.
            steps: the recipe's ``augment``; what it makes of an image is a function of (seed, epoch, number).

        Yields:
            (B,) numbers on the device, and (B, H, W, 3) uint8 images, augmented.
        """
        for part in parts:
            index = part.to(self.labels.device, non_blocking=True)
            yield index, augment(self.pixels[index], steps, seed, epoch, index)


@dataclass(frozen=True)
class TokenImages(Images):
    """What frozen blocks made of the images, in their place: read as it is needed, not augmented."""

    pixels: Tokens

    def inputs(self, images: Tensor, how: Normalise) -> Tensor:
        return images

    def batches(self, parts: Sequence[Tensor], steps: Sequence[Step], seed: int, epoch: int,
                ) -> Iterator[tuple[Tensor, Tensor]]:
        for part in parts:
            index = part.to(self.labels.device, non_blocking=True)
            yield index, self.pixels[part]


class _OnDevice:
    """Rows that are decoded when they are read, as tensors."""

    def __init__(self, rows: Encoded, device: torch.device) -> None:
        self.rows, self.device, self.shape = rows, device, rows.shape

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Tensor) -> Tensor:
        return torch.from_numpy(self.rows[index.cpu().numpy()]).to(self.device)


@dataclass(frozen=True)
class DecodedImages(Images):
    """A labelled set that is decoded anew in each epoch, ahead of the training, by other processes.

    A random resized crop that comes first is cut out of the whole image there; all else is done on the device. The
    number of processes changes no number. Where several ranks train, each makes its share of a batch.
    """

    pixels: _OnDevice
    """Images in the geometry of their dataset, when they are asked for."""
    workers: int = 0
    """Processes that decode; 0: this one does."""
    ranks: Ranks = ALONE
    _loaders: dict[str, tuple[Order, DataLoader]] = field(default_factory=dict, repr=False)

    def batches(self, parts: Sequence[Tensor], steps: Sequence[Step], seed: int, epoch: int,
                ) -> Iterator[tuple[Tensor, Tensor]]:
        first = steps[0] if steps and isinstance(steps[0], RandomResizedCrop) else None
        order, ahead = self._loader(first, seed)
        order.epoch, order.parts = epoch, [part[self.ranks.share(len(part))] for part in parts]
        batches = iter(ahead)
        for part in parts:
            try:
                images, index = next(batches)
            except OODError as error:  # a worker's comes with its traceback
                raise OODError(str(error).strip().rpartition("OODError: ")[2]) from None
            index = index.to(self.labels.device, non_blocking=True)
            images = images.to(self.labels.device, non_blocking=True)
            images = augment(images, steps, seed, epoch, index, done=int(first is not None))
            yield part.to(index.device, non_blocking=True), self.ranks.gather(images, len(part))

    def _loader(self, first: RandomResizedCrop | None, seed: int) -> tuple[Order, DataLoader]:
        """One loader, whose processes are kept, for each way to decode."""
        key = f"{seed} {first}"
        if key not in self._loaders:
            rows, order = self.pixels.rows, Order()
            how = first.random_resized_crop if first else rows.geometry
            images = Decoded(rows.archive.path, how, seed, rows.numbers)
            self._loaders[key] = order, loader(images, order, self.workers)
        return self._loaders[key]


@dataclass(frozen=True)
class ResidentImages(Images):
    """A labelled set that is trained on in one geometry, held on the device, and evaluated in another, decoded when it
    is read."""

    pixels: _OnDevice
    held: Tensor | LongSide | None = None
    """The images to train on."""

    def batches(self, parts: Sequence[Tensor], steps: Sequence[Step], seed: int, epoch: int,
                ) -> Iterator[tuple[Tensor, Tensor]]:
        return Images(self.held, self.labels).batches(parts, steps, seed, epoch)


def images_of(store: Store, device: torch.device, workers: int = 0, masks: Tensor | None = None,
              ranks: Ranks = ALONE, geometry: str | None = None) -> Images:
    """The images of a store, ready to train on.

    Args:
        store: read by :func:`workflow_scripts.data.images.store.load_store`; no noise set.
        workers: processes that decode, where images are not stored.
        masks: pseudo-masks of the images.
        ranks: the processes that train on them.
        geometry: in which images that are not stored are trained on, held on the device; ``None``: decoded anew in each
            epoch.

    Raises:
        OODError: the device has no room for them.
    """
    labels = torch.from_numpy(store.labels).to(device)
    if isinstance(store.images, Encoded):
        if geometry:
            evaluated = _OnDevice(store.images, device)
            return ResidentImages(evaluated, labels, masks, resident(store.images, geometry, device))
        return DecodedImages(_OnDevice(store.images, device), labels, masks, workers, ranks)
    if device.type == "cuda":
        size = len(store.images.flat) if isinstance(store.images, CentreCrops) else store.images.nbytes
        check_room(size, device, f"pixels: {len(labels):,} stored images", "give their dataset pixels: decoded")
    if isinstance(store.images, CentreCrops):
        return Images(LongSide.of(store.images, device), labels, masks)
    return Images(torch.from_numpy(store.images).to(device), labels, masks)
