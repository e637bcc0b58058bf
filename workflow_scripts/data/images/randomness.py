"""Random numbers as a function of (seed, epoch, image index, draw): the same whatever the batch, worker or device.

A counter-based generator: the four numbers are mixed into one 64-bit counter and scrambled by the finaliser of
SplitMix64 (Steele et al., OOPSLA 2014). No state is kept, so a resumed run draws what the uninterrupted one draws.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MASK = (1 << 64) - 1


def _signed(value: int) -> int:
    """A 64-bit pattern as the int64 that holds it."""
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _scramble(x: Tensor) -> Tensor:
    x = (x ^ _shift(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shift(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shift(x, 31)


def uniforms(seed: int, epoch: int, index: Tensor, draws: int) -> Tensor:
    """Independent uniform numbers in [0, 1) for each image.

    Args:
        seed, epoch: of the run.
        index: (B,) int64, the image's number in its store.
        draws: numbers per image.

    Returns:
        (B, draws) float32, on the device of ``index``.
    """
    start = _signed(_start(seed, epoch))
    counter = index[:, None] * _signed(0xD6E8FEB86659FD93) + torch.arange(draws, device=index.device)[None]
    return _shift(_scramble(_scramble(counter + start)), 40).float() / (1 << 24)


def uniforms_of(seed: int, epoch: int, index: int, draws: int) -> list[float]:
    """The numbers of :func:`uniforms` for one image, without tensors: a loader's worker needs a few at a time."""
    counter = index * 0xD6E8FEB86659FD93 + _start(seed, epoch)
    return [(_scrambled(_scrambled((counter + k) & _MASK)) >> 40) / (1 << 24) for k in range(draws)]


def _start(seed: int, epoch: int) -> int:
    """Where the counter of an epoch begins, a 64-bit pattern."""
    return _scrambled((seed * 0x9E3779B97F4A7C15 + epoch * 0xD1B54A32D192ED03 + 1) & _MASK)


def _scrambled(x: int) -> int:
    """:func:`_scramble` of one 64-bit pattern."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & _MASK
    return x ^ (x >> 31)


def permutation(seed: int, epoch: int, count: int) -> Tensor:
    """The order of an epoch: a permutation of 0..count-1, int64, on CPU."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) & 0x7FFFFFFFFFFFFFFF)
    return torch.randperm(count, generator=generator)
