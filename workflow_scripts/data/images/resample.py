"""Random resized crops of a batch of uint8 images, equal to the byte to PIL's bilinear resizing of each crop.

PIL resizes the width, then the height; each output pixel is a sum of input pixels under a triangle whose width grows
with the reduction, with weights of 22 bits, rounded to a byte after each pass. Pillow 13 takes the height first where
that shrinks more than the width (Pillow pull request 9549), which changes some bytes by 1; the papers ran earlier ones.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from workflow_scripts.core.changes import ResizedWindow

_ATTEMPTS = 10  # torchvision's; then the largest central crop of an allowed ratio
_ONE = float(1 << 22)  # PIL's weight of 1


def boxes(height: int | Tensor, width: int | Tensor, scale: tuple[float, float], ratio: tuple[float, float], u: Tensor,
          ) -> Tensor:
    """Random windows of a share ``scale`` of the area and a width-to-height ``ratio`` (log-uniform).

    Args:
        height, width: of all images, or (B,) int64 of each.
        u: (B, 22) uniforms: ten attempts of area and ratio, then the place.

    Returns:
        (B, 4) int64: top, left, height, width.
    """
    tall, wide = (x[:, None] if isinstance(x, Tensor) else x for x in (height, width))
    area = tall * wide * (scale[0] + (scale[1] - scale[0]) * u[:, 0:20:2].double())  # (B, 10)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    shape = torch.exp(low + (high - low) * u[:, 1:20:2].double())
    w, h = (area * shape).sqrt().round().long(), (area / shape).sqrt().round().long()
    fits = (w > 0) & (w <= wide) & (h > 0) & (h <= tall)
    first = fits.int().argmax(1, keepdim=True)
    w, h = w.gather(1, first)[:, 0], h.gather(1, first)[:, 0]
    top = (u[:, 20].double() * (height - h + 1)).long()
    left = (u[:, 21].double() * (width - w + 1)).long()
    drawn = top, left, h, w
    across, down = (x.double() if isinstance(x, Tensor) else x for x in (width, height))
    size = _lesser(height, across / ratio[0]), _lesser(width, down * ratio[1])
    centre = (height - size[0]) // 2, (width - size[1]) // 2, *size
    there = fits.any(1)
    return torch.stack([torch.where(there, given, whole) for given, whole in zip(drawn, centre, strict=True)], 1)


def _lesser(extent: int | Tensor, other: float | Tensor) -> int | Tensor:
    """The lesser of an extent and a rounded one."""
    if isinstance(extent, Tensor):
        return torch.minimum(extent, torch.as_tensor(other).round().long())
    return min(extent, round(other))


def weights(start: Tensor, length: Tensor, size: int, out: int) -> Tensor:
    """PIL's bilinear weights that bring pixels start..start+length of a line of ``size`` to ``out`` pixels.

    Args:
        start, length: (B,) int64.

    Returns:
        (B, out, size) float64, whole numbers of 2^-22.
    """
    step = length.double() / out  # (B,) input pixels per output pixel
    reach = step.clamp_min(1.0)[:, None, None]
    centre = (torch.arange(out, device=start.device) + 0.5)[None, :, None] * step[:, None, None]  # (B, out, 1)
    x = (torch.arange(size, device=start.device) - start[:, None])[:, None, :].double()  # (B, 1, size) inside the crop
    first = (centre - reach + 0.5).floor().clamp_min(0)
    last = torch.minimum((centre + reach + 0.5).floor(), length[:, None, None].double())
    triangle = (1 - ((x - centre + 0.5) / reach).abs()).clamp_min(0) * ((x >= first) & (x < last))
    return (triangle / triangle.sum(2, keepdim=True) * _ONE + 0.5).floor()


def resized_crop(images: Tensor, box: Tensor, size: int) -> Tensor:
    """Cut ``box`` (B, 4: top, left, height, width) out of each image and resize it. -> uint8 (B, size, size, 3)."""
    count, height, width, channels = images.shape
    top, left, h, w = box.unbind(1)
    across, down = weights(left, w, width, size), weights(top, h, height, size)
    x = images.permute(0, 2, 1, 3).reshape(count, width, -1).double()
    x = _byte(across @ x)  # (B, size, H * 3)
    x = x.view(count, size, height, channels).permute(0, 2, 1, 3).reshape(count, height, -1)
    return _byte(down @ x).to(torch.uint8).view(count, size, size, channels)


def _byte(total: Tensor) -> Tensor:
    return (total / _ONE + 0.5).floor().clamp(0, 255)


def random_resized_crop(images: Tensor, how: ResizedWindow, u: Tensor) -> Tensor:
    """A random window, resized to ``size`` x ``size``.

    Args:
        images: (B, H, W, 3) uint8.
        how: size; scale and ratio as in :func:`boxes`.
        u: (B, 22) uniforms.
    """
    box = boxes(images.shape[1], images.shape[2], how.scale, how.ratio, u)
    return resized_crop(images, box, how.size)
