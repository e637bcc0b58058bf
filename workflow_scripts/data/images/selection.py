"""Which images of a set are kept: at random, or in proportion to learned weights (numbers only, no images)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

BLOCK = 2**22  # images looked at together


def stream(seed: int, name: str) -> np.random.Generator:
    """The random numbers of a draw; of one seed, draws of different names are independent."""
    words = np.frombuffer(hashlib.sha256(name.encode()).digest(), "<u4").tolist() if name else []
    return np.random.default_rng((seed, 0x73656C, *words))


def random(count: int, ratio: float, exact: bool, rng: np.random.Generator) -> np.ndarray:
    """Each image with the same chance.

    As released, the images whose draw is at least the int((1 - ratio) N)-th smallest are kept: N - int((1 - ratio) N)
    + 1 of them (one more than intended; with ``exact`` round(ratio N)). A ratio of 1 keeps all.

    Returns:
        Ascending int64 image numbers.
    """
    draws = rng.random(count)
    if exact:
        size = max(1, round(ratio * count))
        return np.sort(np.argpartition(draws, count - size)[count - size:])
    return above_threshold(draws, ratio)


def above_threshold(draws: np.ndarray, ratio: float) -> np.ndarray:
    """Numbers of the draws that are at least the int((1 - ratio) N)-th smallest. (N,) -> ascending int64."""
    below = int((1 - ratio) * len(draws))
    if not below:
        return np.arange(len(draws))
    return np.flatnonzero(draws >= np.partition(draws, below - 1)[below - 1])


def softplus(theta: np.ndarray) -> np.ndarray:
    """Weights of images: log(1 + exp theta), float64."""
    return np.logaddexp(0.0, theta, dtype=np.float64)


def chances(theta: np.ndarray, ratio: float) -> Iterator[np.ndarray]:
    """Chance of each image to be kept: ratio * w_i / mean w, which may exceed 1. (N,) -> float64 parts of it."""
    scale = ratio * len(theta) / sum(softplus(part).sum() for part in _parts(theta))
    return (scale * softplus(part) for part in _parts(theta))


def learned(theta: np.ndarray, ratio: float, exact: bool, rng: np.random.Generator) -> np.ndarray:
    """In proportion to the weights.

    As released, each image is kept or not by a draw of its own, with chance min(1, ratio * w_i / mean w): about ratio N
    of them, fewer where chances above 1 are cut. With ``exact`` round(ratio N) are drawn one after the other without
    replacement (Efraimidis & Spirakis 2006).

    Args:
        theta: (N,) parameters of the images' weights.

    Returns:
        Ascending int64 image numbers.
    """
    if exact:
        size = max(1, round(ratio * len(theta)))
        keys = np.concatenate([np.log(rng.random(len(part))) / softplus(part) for part in _parts(theta)])
        return np.sort(np.argpartition(keys, len(theta) - size)[len(theta) - size:])
    return np.concatenate([number * BLOCK + np.flatnonzero(chance >= rng.random(len(chance)))
                           for number, chance in enumerate(chances(theta, ratio))])


def _parts(theta: np.ndarray) -> Iterator[np.ndarray]:
    return (theta[start:start + BLOCK] for start in range(0, len(theta), BLOCK))
