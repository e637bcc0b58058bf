"""Encoded images decoded item by item in a loader's workers: for training and features at sizes no store holds.

The first step of a recipe's ``augment`` list may be a random resized crop, which needs the whole image; it is done
here, with PIL, and the others on the device (:func:`workflow_scripts.data.augment.augment` with ``done=1``). What an
item becomes is a function of (seed, epoch, image number): the epoch comes with the number, from the sampler, so neither
the number of workers, nor forking, spawning or keeping them over epochs, changes anything.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Sampler

from workflow_scripts.data.augment import OPERATIONS
from workflow_scripts.data.geometry import resize
from workflow_scripts.data.lmdb_store import Archive
from workflow_scripts.data.randomness import permutation, uniforms_of
from workflow_scripts.data.resample import boxes
from workflow_scripts.errors import OODError

Item = tuple[torch.Tensor, int, int]


class Decoded(Dataset):
    """An archive's images as uint8 (size, size, 3), with label and number; indexed by (epoch, number).

    Args:
        path: LMDB file of the pack stage.
        how: to train, ``{"random_resized_crop": {"size": 224, "scale": [0.08, 1], "ratio": [0.75, 1.333]}}``; to
            extract features, the name of a geometry (``resize256crop224``).
        seed: of the run.

    Raises:
        OODError: no such archive, another step, or, when read, an image that cannot be decoded.
    """

    def __init__(self, path: str | os.PathLike, how: dict[str, Any] | str, seed: int = 0) -> None:
        self.archive, self.how, self.seed = Archive(path), how, seed
        if not isinstance(how, str) and list(how) != ["random_resized_crop"]:
            raise OODError(f"augment: {how} cannot be applied while decoding; random_resized_crop as the first step, "
                           "or a geometry, expected")

    def __len__(self) -> int:
        return len(self.archive)

    def __getitem__(self, item: tuple[int, int]) -> Item:
        epoch, number = item
        content = self.archive.read(number)
        try:
            picture = decoded(content)
        except Exception as error:  # PIL's decoders raise OSError, SyntaxError, ValueError, struct.error, ...
            raise OODError(f"{self.archive.path}: image {number} ({self.archive.names[number]}) cannot be decoded "
                           f"({type(error).__name__}: {error})") from None
        if isinstance(self.how, str):
            pixels = resize(np.asarray(picture)[None], self.how)[0]
        else:
            how = self.how["random_resized_crop"]
            u = torch.tensor([uniforms_of(self.seed, epoch, number, OPERATIONS["random_resized_crop"][1])])
            top, left, height, width = boxes(picture.height, picture.width, how.get("scale", (0.08, 1.0)),
                                             how.get("ratio", (3 / 4, 4 / 3)), u)[0].tolist()
            crop = picture.crop((left, top, left + width, top + height))
            pixels = np.asarray(crop.resize((how["size"], how["size"]), Image.Resampling.BILINEAR))
        return torch.from_numpy(np.array(pixels)), int(self.archive.labels[number]), number


def decoded(content: bytes) -> Image.Image:
    """An encoded image in RGB; one that is RGB already is not copied."""
    image = Image.open(io.BytesIO(content))
    if image.mode != "RGB":
        return image.convert("RGB")
    image.load()
    return image


class Epochs(Sampler):
    """(epoch, number) of a set's images: shuffled anew in each epoch, or in order; ``epoch`` is set before each one."""

    def __init__(self, numbers: Sequence[int] | int, seed: int = 0, shuffle: bool = True) -> None:
        self.numbers = np.arange(numbers) if isinstance(numbers, int) else np.asarray(numbers)
        self.seed, self.shuffle, self.epoch = seed, shuffle, 0

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = permutation(self.seed, self.epoch, len(self)).numpy() if self.shuffle else np.arange(len(self))
        return zip([self.epoch] * len(self), self.numbers[order].tolist(), strict=True)


def loader(images: Decoded, sampler: Epochs, batch_size: int, workers: int, drop_last: bool = False) -> DataLoader:
    """Batches ``(uint8 (B, size, size, 3), labels (B,), numbers (B,))``; set ``sampler.epoch`` before each pass."""
    return DataLoader(images, batch_size, sampler=sampler, num_workers=workers, drop_last=drop_last,
                      persistent_workers=workers > 0, pin_memory=torch.cuda.is_available(),
                      multiprocessing_context="spawn" if workers else None)
