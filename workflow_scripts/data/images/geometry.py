"""From an image's own size to the stored size, by name; resampling is PIL's, as torchvision's on PIL images.

``native`` keeps the size; ``squashN`` resizes to N x N whatever the aspect ratio (himplos 1c, goe 2c, dfb 2c);
``cropN`` resizes the shorter side to N and cuts the central N x N (bgresample 1c, npos 3.3); ``shortN`` does the same
without the cut, for random windows of the long image (bgresample 1c); ``resizeMcropN`` resizes the shorter side to M
and cuts the central N x N (ImageNet: himplos 1c, npos 3.4). Bilinear, or bicubic where the name ends in ``bicubic``
(CLIP: npos 3.2).
"""

from __future__ import annotations

import re

import numpy as np
from PIL import Image

from workflow_scripts.core.errors import OODError

_NAME = re.compile(r"(squash|crop|short|resize([1-9][0-9]*)crop)([1-9][0-9]*)(bicubic)?")


def side(geometry: str) -> int:
    """Side of the stored square; of ``shortN`` the shorter side.

    Raises:
        OODError: the geometry's name is not known or gives no fixed size, or its crop is larger than what it is cut
            from.
    """
    match = _NAME.fullmatch(geometry)
    if not match:
        raise OODError(f"geometry '{geometry}' is not known or of no fixed size; allowed: squashN, cropN, shortN, "
                       "resizeMcropN (N = 32, 128, ...), with bicubic at the end if wanted, and native (as it is)")
    size, target = int(match[3]), int(match[2] or match[3])
    if size > target:
        raise OODError(f"geometry '{geometry}': a crop of {size} does not fit into a shorter side of {target}")
    return size


def keeps_long_side(geometry: str) -> bool:
    """Whether images of one shorter side and different longer sides come out."""
    return geometry.startswith("short")


def resize(block: np.ndarray, geometry: str) -> np.ndarray:
    """Bring images to their stored size. uint8 (n, H, W, 3) -> uint8 (n, N, N, 3), with ``shortN`` (n, H', W', 3).

    Raises:
        OODError: as :func:`side`.
    """
    if geometry == "native" or block.shape[1] == block.shape[2] == side(geometry) == _target(geometry):
        return block
    return np.stack([np.asarray(fit(Image.fromarray(image), geometry)) for image in block])


def _target(geometry: str) -> int:
    """What the shorter side is resized to."""
    match = _NAME.fullmatch(geometry)
    return int(match[2] or match[3])


def fitted(size: tuple[int, int], geometry: str) -> tuple[int, int]:
    """Width and height that an image of this width and height is resized to, before a cut.

    Raises:
        OODError: as :func:`side`.
    """
    target, short = _target(geometry), min(size)
    if geometry.startswith("squash"):
        return target, target
    width, height = (target if extent == short else int(target * extent / short) for extent in size)  # torchvision's
    return width, height


def fit(image: Image.Image, geometry: str) -> Image.Image:
    """Bring one image to its stored size.

    Raises:
        OODError: as :func:`side`.
    """
    if geometry == "native":
        return image
    size, new = side(geometry), fitted(image.size, geometry)
    how = Image.Resampling.BICUBIC if geometry.endswith("bicubic") else Image.Resampling.BILINEAR
    image = image.resize(new, how)
    if keeps_long_side(geometry) or new == (size, size):
        return image
    left, top = round((new[0] - size) / 2), round((new[1] - size) / 2)
    return image.crop((left, top, left + size, top + size))
