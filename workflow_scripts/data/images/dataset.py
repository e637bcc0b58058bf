"""Encoded images decoded item by item in a loader's workers: for training at sizes no store holds.

The first step of a recipe's ``augment`` list may be a random resized crop, which needs the whole image; it is done
here, with PIL, and the others on the device (:func:`workflow_scripts.data.images.augment.augment` with ``done=1``).
What an
item becomes is a function of (seed, epoch, image number): the epoch comes with the number, from the sampler, so neither
the number of workers, nor forking, spawning or keeping them over epochs, changes anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Sampler

from workflow_scripts.core.changes import ResizedWindow
from workflow_scripts.data.archives.lmdb_store import Archive
from workflow_scripts.data.images.augment import OPERATIONS
from workflow_scripts.data.images.geometry import fit
from workflow_scripts.data.images.randomness import uniforms_of
from workflow_scripts.data.images.resample import boxes
from workflow_scripts.data.images.rows import decoded

Item = tuple[torch.Tensor, int]


class Decoded(Dataset):
    """A set's images as uint8 (size, size, 3), each with its number in the set; indexed by (epoch, number).

    Args:
        path: LMDB file of the pack stage.
        how: a random resized crop or the name of a geometry (``resize256crop224``).
        seed: of the run.
        numbers: int64 (N,), numbers of the set's images in the archive; ``None``: all of it.

    Raises:
        OODError: no such archive, or, when read, an image that cannot be decoded.
    """

    def __init__(self, path: str | os.PathLike, how: ResizedWindow | str, seed: int = 0,
                 numbers: np.ndarray | None = None) -> None:
        self.archive, self.how, self.seed = Archive(path), how, seed
        self.numbers = np.arange(len(self.archive)) if numbers is None else numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, item: tuple[int, int]) -> Item:
        epoch, number = item
        picture = decoded(self.archive, int(self.numbers[number]))
        if isinstance(self.how, str):
            pixels = np.asarray(fit(picture, self.how))
        else:
            how = self.how
            u = torch.tensor([uniforms_of(self.seed, epoch, number, OPERATIONS["random_resized_crop"][1])])
            top, left, height, width = boxes(picture.height, picture.width, how.scale, how.ratio, u)[0].tolist()
            crop = picture.crop((left, top, left + width, top + height))
            pixels = np.asarray(crop.resize((how.size, how.size), Image.Resampling.BILINEAR))
        return torch.from_numpy(np.array(pixels)), number


class Order(Sampler):
    """The batches of a pass; ``epoch`` and ``parts``, (B,) image numbers of each batch, are set before it."""

    def __init__(self) -> None:
        self.epoch, self.parts = 0, ()

    def __len__(self) -> int:
        return len(self.parts)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return ([(self.epoch, number) for number in part.tolist()] for part in self.parts)


def loader(images: Decoded, order: Order, workers: int) -> DataLoader:
    """Batches ``(uint8 (B, size, size, 3), numbers (B,))`` as ``order`` says, decoded ahead by so many processes."""
    return DataLoader(images, batch_sampler=order, num_workers=workers, persistent_workers=workers > 0,
                      pin_memory=torch.cuda.is_available(), multiprocessing_context="spawn" if workers else None,
                      generator=torch.Generator())  # its own: else each pass would move the random state of dropout
