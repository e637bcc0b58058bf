"""Batched augmentation and normalisation of uint8 images that live on the device.

Each operation takes (B, H, W, 3) uint8 and per-image uniform numbers, so a whole batch is changed at once. Its
distribution equals torchvision's operation of the same name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from workflow_scripts.data.randomness import uniforms


def random_crop(images: Tensor, padding: int, u: Tensor) -> Tensor:
    """Pad with black on each side and cut a window of the original size. ``u``: (B, 2) uniforms."""
    count, height, width, _ = images.shape
    top, left = (u * (2 * padding + 1)).long().unbind(1)
    rows = torch.arange(height, device=images.device)[None] + (top - padding)[:, None]  # (B, H)
    columns = torch.arange(width, device=images.device)[None] + (left - padding)[:, None]  # (B, W)
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    batch = torch.arange(count, device=images.device)[:, None, None]
    window = images[batch, rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None, :]]
    return window * inside[..., None]


def horizontal_flip(images: Tensor, probability: float, u: Tensor) -> Tensor:
    """Mirror left-right with ``probability``. ``u``: (B, 1) uniforms."""
    return torch.where((u < probability)[:, :, None, None], images.flip(2), images)


_OPERATIONS = {"random_crop": (random_crop, 2), "horizontal_flip": (horizontal_flip, 1)}


def augment(images: Tensor, steps: Sequence[dict[str, Any]], seed: int, epoch: int, index: Tensor) -> Tensor:
    """Apply the recipe's ``augment`` list.

    Args:
        images: (B, H, W, 3) uint8.
        steps: e.g. ``[{"random_crop": 4}, {"horizontal_flip": 0.5}]``.
        seed, epoch: of the run.
        index: (B,) int64 image numbers.
    """
    plan = [(name, value, *_OPERATIONS[name]) for step in steps for name, value in step.items()]
    if not plan:
        return images
    u = uniforms(seed, epoch, index, sum(draws for *_, draws in plan))
    for _, value, operation, draws in plan:
        images, u = operation(images, value, u[:, :draws]), u[:, draws:]
    return images


def normalise(images: Tensor, how: str | dict[str, Any]) -> Tensor:
    """Pixel values to network inputs.

    Args:
        images: (B, H, W, 3) uint8.
        how: ``{"mean": (3,), "std": (3,)}`` on values in 0..1, or ``"per_image"``: each image to zero mean and unit
            standard deviation over all its values (a constant image becomes zero).

    Returns:
        (B, 3, H, W) float32 in channels-last memory.
    """
    x = images.permute(0, 3, 1, 2).float() / 255  # NHWC memory seen as NCHW: channels-last
    if how == "per_image":
        mean = x.mean(dim=(1, 2, 3), keepdim=True)
        std = x.std(dim=(1, 2, 3), keepdim=True, correction=0)
        return (x - mean) / std.clamp_min(1 / 255)
    mean = torch.tensor(how["mean"], device=x.device)[None, :, None, None]
    std = torch.tensor(how["std"], device=x.device)[None, :, None, None]
    return (x - mean) / std
