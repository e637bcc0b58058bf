"""Images of an archive, decoded once and held on the device as uint8."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from workflow_scripts.core.errors import OODError
from workflow_scripts.data.images.geometry import fit, fitted, keeps_long_side, side
from workflow_scripts.data.images.long_side import LongSide
from workflow_scripts.data.images.rows import Encoded, decoded
from workflow_scripts.data.reading import threads
from workflow_scripts.networks.memory import check_room

_BLOCK = 1024  # images on the host at once


def resident(rows: Encoded, geometry: str, device: torch.device) -> Tensor | LongSide:
    """All images of ``rows`` in another geometry, in their order.

    Args:
        geometry: of a fixed size, or ``shortN``, which keeps the long side.

    Returns:
        (N, side, side, 3) uint8, or the images whose long side was kept, on the device.

    Raises:
        OODError: they do not fit into the device's memory, or one of them cannot be decoded.
    """
    with ThreadPoolExecutor(threads()) as pool:
        size = side(geometry)
        if keeps_long_side(geometry):
            sizes = list(pool.map(lambda number: _size(rows, number, geometry), rows.numbers.tolist()))
        else:
            sizes = [(size, size)] * len(rows)
        width, height = (torch.tensor(extents) for extents in zip(*sizes, strict=True))
        first = (width * height).cumsum(0) - width * height
        total = int((width * height).sum())
        check_room(3 * total, device, f"resident: the {len(rows):,} train images in the geometry {geometry}",
                   "take a smaller geometry, or leave resident out, and they are decoded in time")
        held = torch.empty(total, 3, dtype=torch.uint8, device=device)
        for start in range(0, len(rows), _BLOCK):
            block = range(start, min(start + _BLOCK, len(rows)))
            images = list(pool.map(lambda row: _pixels(rows, row, geometry, sizes[row]), block))
            flat = torch.from_numpy(np.concatenate(images))
            held[first[start]:first[start] + len(flat)] = flat.to(device)
    if not keeps_long_side(geometry):
        return held.view(len(rows), size, size, 3)
    return LongSide(held, first.to(device), width.to(device), height.to(device), size, device)


def _size(rows: Encoded, number: int, geometry: str) -> tuple[int, int]:
    """Width and height of an image in the geometry, by its header."""
    try:
        with Image.open(io.BytesIO(rows.archive.read(number))) as image:
            return fitted(image.size, geometry)
    except OSError:
        decoded(rows.archive, number)  # says which it is
        raise


def _pixels(rows: Encoded, row: int, geometry: str, size: tuple[int, int]) -> np.ndarray:
    """(pixels, 3) uint8 of an image."""
    number = int(rows.numbers[row])
    image = fit(decoded(rows.archive, number), geometry)
    if image.size != size:
        raise OODError(f"{rows.archive.path}: image {number} ({rows.archive.names[number]}) is of another size than "
                       "its header says, and cannot be held; leave the recipe's resident out")
    return np.asarray(image).reshape(-1, 3)
