"""Pseudo-OOD: images of the ID set made unlike it, for choosing options without any OOD image."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from workflow_scripts.core.errors import OODError
from workflow_scripts.data.images.jigsaw import jigsaw
from workflow_scripts.data.images.randomness import uniforms
from workflow_scripts.data.images.store import Store, open_store, pixel_rows


def spaced(path: str, count: int, step: int = 1) -> tuple[Store, np.ndarray]:
    """Images of a store, evenly spaced, and their numbers (n,).

    Args:
        count: so many at most.
        step: at most every so-manieth image.

    Raises:
        OODError: there are fewer than two.
    """
    with open_store(path) as file:
        there = len(file["labels"])
        index = np.arange(0, there, max(step, -(-there // count)))
        rows = np.s_[::int(index[1]) if len(index) > 1 else 1]
        kind = "inputs" if "inputs" in file else "images"
        store = Store(**{"images": None, "inputs": None, kind: pixel_rows(file)[rows]}, labels=file["labels"][rows],
                      names=[], classes=(), attrs={})
    if len(index) < 2:
        raise OODError(f"{path}: choosing options needs at least two images, found {len(index)}")
    return store, index


def copies(x: Tensor, index: Tensor, kind: str, std: float, seed: int) -> Tensor:
    """Pseudo-OOD copies of network inputs.

    Args:
        x: inputs, float32 (B, 3, H, W).
        index: numbers of the images (B,), by which each draws.
        kind: ``noise``, Gaussian noise added to the input, or ``jigsaw``, its 3x3 cells in random order.
        std: of the noise, in units of the network input.
        seed: of either.
    """
    return add_noise(x, std, seed, index) if kind == "noise" else jigsaw(x, seed, index)


def add_noise(x: Tensor, std: float, seed: int, index: Tensor) -> Tensor:
    """Network inputs plus Gaussian noise. x (B, 3, H, W), index (B,) image numbers."""
    return x + std * normals(seed, index, x[0].numel()).reshape(x.shape)


def normals(seed: int, index: Tensor, draws: int) -> Tensor:
    """Independent standard normal numbers of each image, by Box and Muller's transform. index (B,) -> (B, draws)."""
    pairs = (draws + 1) // 2
    u, angle = uniforms(seed, 0, index, 2 * pairs).split(pairs, dim=1)
    radius = torch.sqrt(-2 * torch.log1p(-u))  # u < 1
    angle = 2 * math.pi * angle
    return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)[:, :draws]
