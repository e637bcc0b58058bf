"""Pseudo-OOD: images of the ID set made unlike it, for choosing options without any OOD image."""

from __future__ import annotations

import math

import h5py
import numpy as np
import torch
from torch import Tensor

from workflow_scripts.core.errors import OODError
from workflow_scripts.data.images.jigsaw import jigsaw
from workflow_scripts.data.images.randomness import uniforms
from workflow_scripts.data.images.store import Store, open_store, pixel_rows


def spaced(path: str, count: int) -> Store:
    """At most ``count`` images of a store, evenly spaced.

    Raises:
        OODError: there are fewer than two.
    """
    with open_store(path) as file:
        return _some(file, np.s_[::-(-len(file["labels"]) // count)], path)


def drawn(path: str, count: int, seed: int) -> tuple[Store, np.ndarray]:
    """At most ``count`` images of a store, and at most half of them, at random, and their numbers, ascending (n,).

    Evenly spaced ones would be of some classes alone where labels follow one another in a cycle.

    Raises:
        OODError: there are fewer than two.
    """
    with open_store(path) as file:
        there = len(file["labels"])
        index = np.sort(np.random.RandomState(seed).permutation(there)[:min(count, there // 2)])
        return _some(file, index, path), index


def _some(file: h5py.File, rows: slice | np.ndarray, path: str) -> Store:
    """These images of an open store, in memory."""
    labels = file["labels"][:][rows]
    if len(labels) < 2:
        raise OODError(f"{path}: choosing options needs at least two images, found {len(labels)}")
    kind = "inputs" if "inputs" in file else "images"
    return Store(**{"images": None, "inputs": None, kind: pixel_rows(file)[rows]}, labels=labels, names=[], classes=(),
                 attrs={})


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
