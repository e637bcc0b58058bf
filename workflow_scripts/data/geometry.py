"""From an image's own size to the stored size, by name; resampling is PIL's, as torchvision's on PIL images.

``native`` keeps the size; ``squashN`` resizes to N x N whatever the aspect ratio (himplos 1c, goe 2c, dfb 2c);
``cropN`` resizes the shorter side to N and cuts the central N x N (bgresample 1c, npos 3.3); ``resizeMcropN`` resizes
the shorter side to M and cuts the central N x N (ImageNet: himplos 1c, npos 3.4). Bilinear, or bicubic where the name
ends in ``bicubic`` (CLIP: npos 3.2).
"""

from __future__ import annotations

import re

import numpy as np
from PIL import Image

from workflow_scripts.errors import OODError

_NAME = re.compile(r"(squash|crop|resize([1-9][0-9]*)crop)([1-9][0-9]*)(bicubic)?")


def resize(block: np.ndarray, geometry: str) -> np.ndarray:
    """Bring images to their stored size. uint8 (n, H, W, 3) -> uint8 (n, N, N, 3).

    Raises:
        OODError: the geometry's name is not known, or its crop is larger than what it is cut from.
    """
    if geometry == "native":
        return block
    match = _NAME.fullmatch(geometry)
    if not match:
        raise OODError(f"geometry '{geometry}' is not known; allowed: native, squashN, cropN, resizeMcropN (N = 32, "
                       "128, ...), with bicubic at the end if wanted")
    size = int(match[3])
    target = int(match[2] or size)  # of the shorter side
    if size > target:
        raise OODError(f"geometry '{geometry}': a crop of {size} does not fit into a shorter side of {target}")
    height, width = block.shape[1:3]
    if height == width == target == size:
        return block
    if match[1] == "squash":
        new_width = new_height = size
    else:  # torchvision's rule: the longer side is truncated to an integer
        short = min(height, width)
        new_width, new_height = (target if s == short else int(target * s / short) for s in (width, height))
    left, top = round((new_width - size) / 2), round((new_height - size) / 2)
    box = (left, top, left + size, top + size)
    how = Image.Resampling.BICUBIC if match[4] else Image.Resampling.BILINEAR
    return np.stack([np.asarray(Image.fromarray(image).resize((new_width, new_height), how).crop(box))
                     for image in block])
