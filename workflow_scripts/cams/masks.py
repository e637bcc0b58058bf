"""From an activation map to a pseudo-mask (DFB 2e, stage 3).

Gaussian filter, minimum to 0 and maximum to 1, foreground where the value exceeds the threshold; background is 0,
class c is c + 1. A map that is zero everywhere gives background alone.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

_ROUNDING = 1e-6  # of the maximum: less is the filter's rounding
_TRUNCATE = 4.0  # the filter reaches this many sigma, as scipy's does


@functools.lru_cache(maxsize=8)
def _filter(size: int, sigma: float) -> Tensor:
    """The Gaussian filter along one axis as a matrix; the signal is mirrored at its ends (d c b a | a b c d).

    -> (size, size) float64.
    """
    radius = int(_TRUNCATE * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1)
    weights = torch.exp(-0.5 * (offsets.double() / sigma) ** 2)
    weights = weights / weights.sum()
    place = (torch.arange(size)[:, None] + offsets) % (2 * size)  # the mirrored signal has period 2 size
    place = torch.where(place < size, place, 2 * size - 1 - place)
    return torch.zeros(size, size, dtype=torch.float64).scatter_add_(1, place, weights.expand(size, -1))


def smoothed(cams: Tensor, sigma: float) -> Tensor:
    """Filtered maps with their minimum at 0 and their maximum at 1; constant maps become 0. (N, H, W) -> (N, H, W)."""
    if sigma:
        down, across = (_filter(side, sigma).to(cams) for side in cams.shape[1:])
        cams = down @ cams @ across.T
    low, high = torch.aminmax(cams.flatten(1), dim=1)
    cams = cams - low[:, None, None]
    span = (high - low)[:, None, None]
    varies = span > _ROUNDING * high.abs()[:, None, None]
    return torch.where(varies, cams / span.where(varies, torch.ones_like(span)), torch.zeros_like(cams))


def foreground(cams: Tensor, sigma: float = 4.0, threshold: float = 0.5) -> Tensor:
    """Where the class is. (N, H, W) -> (N, H, W) bool; nowhere for maps without a positive value."""
    return (smoothed(cams, sigma) > threshold) & (cams.amax((1, 2), keepdim=True) > 0)


def pseudo_masks(inside: Tensor, classes: Tensor) -> Tensor:
    """Label of each pixel: 0 outside, class + 1 inside. (N, H, W) bool, (N,) int64 -> (N, H, W) int64."""
    return inside * (classes + 1)[:, None, None]
