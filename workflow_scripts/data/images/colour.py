"""Colour changes of a batch of uint8 images, equal to the byte to PIL's, which torchvision calls on PIL images.

PIL's arithmetic (its C sources): luma is an integer sum; enhancing blends with a degenerate image in single precision
and cuts off the fraction; hue goes through 8-bit HSV.
"""

from __future__ import annotations

import itertools
from functools import cache

import torch
from torch import Tensor

from workflow_scripts.core.changes import Jitter

# of value, p, q, t: red, green, blue in each sixth of the circle
_PLACES = ((0, 3, 1), (2, 0, 1), (1, 0, 3), (1, 2, 0), (3, 1, 0), (0, 1, 2))


@cache
def _orders(device: torch.device) -> Tensor:
    """The orders of four operations. -> (24, 4); kept on the device, since each copy to a GPU makes it wait."""
    return torch.tensor(list(itertools.permutations(range(4))), device=device)


@cache
def _places(device: torch.device) -> Tensor:
    """:data:`_PLACES` on the device. -> (6, 3)."""
    return torch.tensor(_PLACES, device=device)


def luma(images: Tensor) -> Tensor:
    """Grey values. (B, H, W, 3) uint8 -> (B, H, W, 1) int32."""
    r, g, b = images.int().unbind(-1)
    return ((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16)[..., None]


def grayscale(images: Tensor, probability: float, u: Tensor) -> Tensor:
    """Grey with ``probability``, in three equal channels. ``u``: (B, 1) uniforms."""
    return torch.where((u < probability)[:, :, None, None], luma(images).to(torch.uint8), images)


def _blend(degenerate: Tensor, images: Tensor, factor: Tensor) -> Tensor:
    """degenerate + factor * (images - degenerate), cut to a byte. ``factor``: (B,) float32."""
    start = degenerate.float()
    mixed = (images.float() - start) * factor[:, None, None, None] + start
    return mixed.clamp(0, 255).to(torch.uint8)


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with black; 0: black, 1: unchanged. (B, H, W, 3) uint8, (B,) -> (B, H, W, 3) uint8."""
    return _blend(torch.zeros_like(images), images, factor)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the image's mean grey; 0: grey, 1: unchanged. Shapes as :func:`brightness`."""
    mean = luma(images).double().mean(dim=(1, 2, 3), keepdim=True)
    return _blend((mean + 0.5).floor(), images, factor)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the image in grey; 0: grey, 1: unchanged. Shapes as :func:`brightness`."""
    return _blend(luma(images), images, factor)


def hue(images: Tensor, factor: Tensor) -> Tensor:
    """Turn the hue by ``factor`` of the full circle, -0.5..0.5. Shapes as :func:`brightness`."""
    h, s, v = _to_hsv(images)
    turn = (factor.double() * 255).to(torch.int32)  # cut towards zero, as torchvision does
    return _to_rgb((h + turn[:, None, None]) & 255, s, v)


def _to_hsv(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(B, H, W, 3) uint8 -> hue, saturation, value, each (B, H, W) int32 in 0..255."""
    x = images.int()
    high, low = x.amax(-1), x.amin(-1)
    spread = (high - low).clamp_min(1).float()
    r, g, b = ((high[..., None] - x).float() / spread[..., None]).double().unbind(-1)
    red, green = x[..., 0] == high, x[..., 1] == high
    h = torch.where(red, b - g, torch.where(green, 2 + r - b, 4 + g - r)).float().double()
    h = torch.remainder(h / 6 + 1, 1).float().double()
    s = (high - low).float() / high.clamp_min(1).float()
    grey = high == low
    return ((h * 255).int().masked_fill(grey, 0), (s.double() * 255).int().masked_fill(grey, 0), high)


def _to_rgb(h: Tensor, s: Tensor, v: Tensor) -> Tensor:
    """Inverse of :func:`_to_hsv` up to rounding. -> (B, H, W, 3) uint8."""
    sixth = h.float() * 6.0
    sector = (sixth.double() / 255).floor()
    f = (sixth.double() / 255 - sector).float()
    fs = (s.double() / 255).float()
    value = v.double()
    p = (value * (1 - fs.double()) + 0.5).floor()
    q = (value * (1 - (fs * f).double()) + 0.5).floor()
    t = (value * (1 - fs.double() * (1 - f.double())) + 0.5).floor()
    choices = torch.stack([value, p, q, t], -1)  # (B, H, W, 4)
    rgb = choices.gather(-1, _places(h.device)[sector.long() % 6])
    return torch.where((s == 0)[..., None], value[..., None], rgb).clamp(0, 255).to(torch.uint8)


def colour_jitter(images: Tensor, how: Jitter, u: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue by random factors in random order, with probability ``p``.

    Args:
        images: (B, H, W, 3) uint8.
        how: ``brightness``, ``contrast``, ``saturation``: a factor in max(0, 1 - x)..1 + x; ``hue``: a turn in -x..x;
            ``p``: how often. What is 0 is left out.
        u: (B, 6) uniforms: whether, order, four factors.
    """
    orders = _orders(u.device)
    order = orders[(u[:, 1] * len(orders)).long()]  # (B, 4)
    chosen = u[:, 0] < how.p
    operations = []
    for k, (name, operation) in enumerate((("brightness", brightness), ("contrast", contrast),
                                           ("saturation", saturation), ("hue", hue))):
        if extent := getattr(how, name):
            low, high = (-extent, extent) if name == "hue" else (max(0.0, 1 - extent), 1 + extent)
            operations.append((k, operation, low + (high - low) * u[:, 2 + k]))
    images = images.clone()
    for place in range(4):
        for k, operation, factor in operations:
            now = chosen & (order[:, place] == k)
            if images.is_cuda:  # how many they are is not asked: the GPU would have to answer first
                images = torch.where(now[:, None, None, None], operation(images, factor), images)
            elif len(rows := now.nonzero()[:, 0]):
                images[rows] = operation(images[rows], factor[rows])
    return images
