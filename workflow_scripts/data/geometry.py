"""From an image's own size to the stored size, by name; resampling is PIL's bilinear, as torchvision's on PIL images.

``native`` keeps the size; ``squashN`` resizes to N x N whatever the aspect ratio (himplos 1c, goe 2c, dfb 2c);
``cropN`` resizes the shorter side to N and cuts the central N x N (bgresample 1c, npos 3.3).
"""

from __future__ import annotations

import re

import numpy as np
from PIL import Image

from workflow_scripts.errors import OODError


def resize(block: np.ndarray, geometry: str) -> np.ndarray:
    """Bring images to their stored size. uint8 (n, H, W, 3) -> uint8 (n, N, N, 3).

    Raises:
        OODError: the geometry's name is not known.
    """
    if geometry == "native":
        return block
    match = re.fullmatch(r"(squash|crop)([1-9][0-9]*)", geometry)
    if not match:
        raise OODError(f"geometry '{geometry}' is not known; allowed: native, squashN, cropN (N = 32, 128, ...)")
    kind, size = match[1], int(match[2])
    height, width = block.shape[1:3]
    if height == width == size:
        return block
    if kind == "squash":
        new_width = new_height = size
    else:  # torchvision's rule: the longer side is truncated to an integer
        short = min(height, width)
        new_width, new_height = (size if s == short else int(size * s / short) for s in (width, height))
    left, top = round((new_width - size) / 2), round((new_height - size) / 2)
    box = (left, top, left + size, top + size)
    return np.stack([
        np.asarray(Image.fromarray(image).resize((new_width, new_height), Image.Resampling.BILINEAR).crop(box))
        for image in block
    ])
