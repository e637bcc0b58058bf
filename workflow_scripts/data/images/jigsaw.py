"""Images cut into cells that are put together in another order: pseudo-OOD made of ID images."""

from __future__ import annotations

import torch
from torch import Tensor

from workflow_scripts.data.images.randomness import uniforms


def jigsaw(x: Tensor, seed: int, index: Tensor) -> Tensor:
    """The nine cells of a 3x3 grid in a random order for each image; rows and columns left over stay in place.

    x (B, 3, H, W), index (B,) image numbers.
    """
    count, channels, height, width = x.shape
    h, w = height // 3, width // 3
    order = uniforms(seed, 0, index, 9).argsort(dim=1)  # (B, 9)
    cells = x[:, :, :3 * h, :3 * w].reshape(count, channels, 3, h, 3, w).permute(0, 2, 4, 1, 3, 5)
    cells = cells.reshape(count, 9, channels, h, w)[torch.arange(count, device=x.device)[:, None], order]
    moved = x.clone()
    cells = cells.reshape(count, 3, 3, channels, h, w).permute(0, 3, 1, 4, 2, 5)  # (B, C, 3, h, 3, w)
    moved[:, :, :3 * h, :3 * w] = cells.reshape(count, channels, 3 * h, 3 * w)
    return moved
