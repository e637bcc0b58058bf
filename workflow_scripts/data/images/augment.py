"""Batched augmentation and normalisation of uint8 images that live on the device.

Each operation takes (B, H, W, 3) uint8 and per-image uniform numbers, so a whole batch is changed at once. Its
distribution equals that of torchvision's operation of the same name on PIL images.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from functools import lru_cache

import torch
from torch import Tensor

from workflow_scripts.core.changes import CropWindow, Normalise, Step
from workflow_scripts.core.errors import OODError
from workflow_scripts.data.images.colour import colour_jitter, grayscale
from workflow_scripts.data.images.long_side import LongSide
from workflow_scripts.data.images.randomness import uniforms
from workflow_scripts.data.images.resample import random_resized_crop


def crop_of(how: int | CropWindow) -> tuple[int | None, int]:
    """(side of the window or None for the image's own size, padding) of a `random_crop`."""
    return (None, how) if isinstance(how, int) else (how.size, how.padding)


def random_crop(images: Tensor, how: int | CropWindow, u: Tensor) -> Tensor:
    """Pad with black on each side and cut a window.

    Args:
        images: (B, H, W, 3) uint8.
        how: the padding, for a window of the original size, or ``size`` and ``padding``.
        u: (B, 2) uniforms.

    Raises:
        OODError: the window is larger than the padded image.
    """
    count, height, width, channels = images.shape
    size, padding = crop_of(how)
    tall, wide = (height, width) if size is None else (size, size)
    above, beside = height - tall + 2 * padding, width - wide + 2 * padding
    if min(above, beside) < 0:
        raise OODError(f"augment: a random_crop of {size} does not fit into images of {width}x{height} with a padding "
                       f"of {padding}")
    top, left = (u[:, 0] * (above + 1)).long(), (u[:, 1] * (beside + 1)).long()
    padded = images
    if padding:
        padded = images.new_zeros(count, height + 2 * padding, width + 2 * padding, channels)
        padded[:, padding:padding + height, padding:padding + width] = images
    padded = padded.contiguous()
    line = padded.stride(1)  # bytes of a padded row
    row = torch.arange(tall, device=images.device) + top[:, None]  # (B, tall)
    batch = torch.arange(count, device=images.device)[:, None]
    start = batch * padded.stride(0) + row * line + left[:, None] * channels  # where each row of a window begins
    pieces = padded.view(-1).as_strided((padded.numel() - wide * channels + 1, wide * channels), (1, 1))
    return pieces.index_select(0, start.view(-1)).view(count, tall, wide, channels)  # rows are copied whole


def horizontal_flip(images: Tensor, probability: float, u: Tensor) -> Tensor:
    """Mirror left-right with ``probability``. ``u``: (B, 1) uniforms."""
    count = len(images)
    both = torch.cat([images, images.flip(2)])
    which = torch.arange(count, device=images.device) + count * (u[:, 0] < probability)
    return both.index_select(0, which)


# name -> (operation, uniform numbers per image)
OPERATIONS = {
    "random_crop": (random_crop, 2), "horizontal_flip": (horizontal_flip, 1), "color_jitter": (colour_jitter, 6),
    "grayscale": (grayscale, 1), "random_resized_crop": (random_resized_crop, 22),
}

# those that move pixels without mixing them: pseudo-masks go through them with the image; others leave a label alone
MOVING = {"random_crop", "horizontal_flip"}
COLOURS = {"color_jitter", "grayscale"}


def augment_masks(masks: Tensor, steps: Sequence[Step], seed: int, epoch: int, index: Tensor) -> Tensor:
    """Apply to pseudo-masks what :func:`augment` applies to their images with the same arguments.

    Args:
        masks: (B, H, W) integers of the images' size; what a crop adds at the edges is 0, background.

    Returns:
        (B, H', W').

    Raises:
        OODError: a step that mixes pixels (random_resized_crop).
    """
    for name in (name for step in steps for name, _ in step if name not in MOVING | COLOURS):
        raise OODError(f"augment: '{name}' cannot be applied to pseudo-masks; use "
                       f"{', '.join(sorted(MOVING | COLOURS))}")
    return augment(masks[..., None], steps, seed, epoch, index, left_out=COLOURS)[..., 0]


def resize_masks(masks: Tensor, height: int, width: int) -> Tensor:
    """Nearest label, as PIL resizes. (B, h, w) -> (B, height, width)."""
    rows, columns = (((torch.arange(new, device=masks.device) + 0.5) * old / new).long()
                     for new, old in zip((height, width), masks.shape[1:], strict=True))
    return masks if masks.shape[1:] == (height, width) else masks[:, rows[:, None], columns]


def augment(images: Tensor | LongSide, steps: Sequence[Step], seed: int, epoch: int, index: Tensor,
            done: int = 0, left_out: Set[str] = frozenset()) -> Tensor:
    """Apply the recipe's ``augment`` list.

    Args:
        images: (B, H, W, 3) uint8; of images whose long side was kept a random crop or random resized crop that comes
            first is a window of the long image, otherwise their central squares are taken.
        steps: e.g. ``[RandomCrop(random_crop=4), HorizontalFlip(horizontal_flip=0.5)]``.
        seed, epoch: of the run.
        index: (B,) int64 image numbers.
        left_out: steps that use up their random numbers and do nothing.
        done: so many steps were applied before (by :class:`workflow_scripts.data.images.dataset.Decoded`).

    Returns:
        (B, H', W', 3) uint8.
    """
    plan = [(name, value, *OPERATIONS[name]) for step in steps for name, value in step]
    if isinstance(images, LongSide) and (not plan or plan[0][0] not in ("random_crop", "random_resized_crop")):
        images = images.centre()
    if len(plan) <= done:
        return images
    u = uniforms(seed, epoch, index, sum(draws for *_, draws in plan))
    for i, (name, value, operation, draws) in enumerate(plan):
        if isinstance(images, LongSide):
            images = (images.resized(value, u[:, :draws]) if name == "random_resized_crop" else
                      images.window(*crop_of(value), u[:, :draws]))
        elif i >= done and name not in left_out:
            images = operation(images, value, u[:, :draws])
        u = u[:, draws:]
    return images


def normalise(images: Tensor, how: Normalise) -> Tensor:
    """Pixel values to network inputs.

    Args:
        images: (B, H, W, 3) uint8.
        how: mean and std per channel on values in 0..1, or ``"per_image"``: each image to zero mean and unit standard
            deviation over all its values (a constant image becomes zero).

    Returns:
        (B, 3, H, W) float32 in channels-last memory.
    """
    x = images.reshape(len(images), -1).float().div_(255)  # (B, H * W * 3)
    if how == "per_image":
        mean = x.mean(dim=1, keepdim=True)
        std = x.std(dim=1, keepdim=True, correction=0)
        x.sub_(mean).div_(std.clamp_min(1 / 255))
    else:  # one long row of means: a row of three would be added without vector instructions
        x.sub_(_row(how.mean, x.shape[1] // 3, x.device)).div_(_row(how.std, x.shape[1] // 3, x.device))
    return x.view(images.shape).permute(0, 3, 1, 2)  # NHWC memory seen as NCHW: channels-last


@lru_cache(maxsize=16)
def _row(channels: tuple[float, float, float], pixels: int, device: torch.device) -> Tensor:
    """Values of the channels, for each pixel. -> (pixels * 3,); kept, since each copy to a GPU makes it wait."""
    return torch.tensor(channels, device=device).repeat(pixels)
