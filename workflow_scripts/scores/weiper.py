"""WeiPer+KLD: densities of an image's activations against those of ID train images (Granz et al., NeurIPS 2024).

The head is perturbed ``repeats`` times, w + delta |w| e with a random unit vector e for each row; its outputs are the
WeiPer space. The density of an image is a histogram of all its activations, between the least and largest of the ID
train images. D is the symmetric Kullback-Leibler divergence of the image's density, smoothed by a running mean, from
the mean density of the ID train images, with ``EPSILON`` added to each:

    score = lambda_2 MSP_W - D(features) - lambda_1 D(WeiPer space),

with MSP_W the largest softmax probability of a perturbed head, averaged over the repeats. ``lambda_1: 0`` and
``lambda_2: 0`` leave the divergence of the features alone. The paper's values for other networks: see the options.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Gt
from array_api_compat import device

from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores.arrays import float64, namespace, spaced
from workflow_scripts.scores.base import Batch, Head, Known

SPEC = ScoreSpec(family="distance", needs={"features", "head", "train_features"}, space={
    "delta": (1.8, 2.0, 2.2, 2.4), "bins": (60, 80, 100), "smooth": (4, 8, 12, 20, 40),
    "smooth_perturbed": (15, 25, 40), "lambda_1": (0.1, 1.0, 2.5, 4.0), "lambda_2": (0.1, 0.25, 1.0, 2.5, 5.0)})
EPSILON = (0.01, 0.025)  # of the released code, for features and for the WeiPer space
VALUES = 2**24  # activations at once


@dataclass(frozen=True)
class Options:
    delta: Annotated[float, Gt(0)] = 1.8
    """Length of the perturbation, relative to that of the row; 1.8 to 2.4 are tried in the released code."""
    repeats: Annotated[int, Gt(0)] = 100
    """Perturbed heads (r); 100 in the paper."""
    bins: Annotated[int, Gt(1)] = 100
    """Bins of a density; 60 to 100 are tried."""
    smooth: Annotated[int, Gt(0)] = 4
    """Bins of the running mean over the features' density (s1); 4 to 40 are tried."""
    smooth_perturbed: Annotated[int, Gt(0)] = 15
    """Bins of the running mean over the WeiPer space's density (s2); 15 to 40 are tried."""
    lambda_1: Annotated[float, Ge(0)] = 2.5
    """Weight of the WeiPer space's divergence; 0.1 to 4 are tried."""
    lambda_2: Annotated[float, Ge(0)] = 0.1
    """Weight of the probability; 0.1 to 5 are tried."""
    bank: Annotated[int, Gt(0)] = 50_000
    """ID train images of the mean densities at most, evenly spaced; 300,000 of ImageNet in the released code."""
    seed: Annotated[int, Ge(0)] = 0
    """Seed of the perturbations."""


@dataclass(frozen=True)
class State:
    """``head`` with K * repeats rows; for features and WeiPer space each ``ranges`` (least, largest), mean train
    ``densities`` (bins,) and ``running`` means, a matrix (bins, bins)."""

    head: Head
    ranges: tuple[tuple[float, float], tuple[float, float]]
    densities: tuple[Any, Any]
    running: tuple[Any, Any]


def perturbed(options: Options, head: Head) -> Head:
    """All perturbed heads below each other, in the head's precision."""
    xp = namespace(head.weight)
    classes, width = head.weight.shape
    random = np.random.default_rng(options.seed)
    noise = random.standard_normal((options.repeats, classes, width), np.float32)
    noise = xp.astype(xp.asarray(noise, device=device(head.weight)), head.weight.dtype, copy=False)
    lengths = xp.linalg.vector_norm(head.weight, axis=-1, keepdims=True)
    noise = noise * (options.delta * lengths / xp.linalg.vector_norm(noise, axis=-1, keepdims=True))
    weight = xp.reshape(noise + head.weight, (-1, width))
    return Head(weight, xp.tile(head.bias, (options.repeats,)))


def running_mean(bins: int, width: int) -> np.ndarray:
    """density @ matrix is its mean over ``width`` bins about each, the first and last repeated. -> (bins, bins)."""
    matrix = np.zeros((bins, bins))
    for offset in range(-((width - 1) // 2), width // 2 + 1):
        sources = np.clip(np.arange(bins) + offset, 0, bins - 1)
        np.add.at(matrix, (sources, np.arange(bins)), 1 / width)
    return matrix


def density(x: Any, least: float, largest: float, bins: int) -> Any:
    """Share of each row's values in each bin; those outside the range are in none. (N, V) -> (N, bins) float64."""
    xp = namespace(x)
    inside = (x >= least) & (x <= largest)
    place = xp.floor((x - least) * (bins / max(largest - least, 1e-12)))
    place = xp.astype(xp.clip(xp.where(inside, place, 0.0), min=0, max=bins - 1), xp.int64)
    place = xp.where(inside, place, bins) + (bins + 1) * xp.arange(x.shape[0], device=device(x))[:, None]
    counts = xp.bincount(xp.reshape(place, (-1,)), minlength=(bins + 1) * x.shape[0])
    return float64(xp.reshape(counts, (x.shape[0], bins + 1))[:, :bins]) / x.shape[1]


def spaces(head: Head, features: Any) -> Iterator[tuple[slice, Any, Any]]:
    """(rows, features, activations of the WeiPer space) of a part of the images."""
    xp = namespace(features)
    size = max(VALUES // head.weight.shape[0], 1)
    for start in range(0, features.shape[0], size):
        rows = slice(start, start + size)
        h = xp.astype(features[rows, ...], head.weight.dtype, copy=False)
        yield rows, h, h @ head.weight.T + head.bias


def fit(options: Options, known: Known) -> State:
    """Perturbed heads, ranges and mean densities."""
    head = perturbed(options, known.head)
    xp = namespace(head.weight)
    bank = spaced(known.train_features, options.bank)
    edges = np.array([[math.inf, -math.inf]] * 2)
    for _, *both in spaces(head, bank):
        for edge, x in zip(edges, both, strict=True):
            edge[:] = min(edge[0], float(xp.min(x))), max(edge[1], float(xp.max(x)))
    sums = [0.0, 0.0]
    for _, *both in spaces(head, bank):
        for i, x in enumerate(both):
            sums[i] = sums[i] + xp.sum(density(x, *edges[i], options.bins), axis=0)
    running = tuple(xp.asarray(running_mean(options.bins, width), device=device(bank))
                    for width in (options.smooth, options.smooth_perturbed))
    ranges = tuple((float(low), float(high)) for low, high in edges)
    return State(head, ranges, tuple(total / bank.shape[0] for total in sums), running)


def divergence(p: Any, q: Any, epsilon: float) -> Any:
    """Symmetric divergence of each row of q (N, bins) from p (bins,), ``epsilon`` added to each bin. -> (N,)."""
    xp = namespace(q)
    p, q = p + epsilon, q + epsilon
    p, q = p / xp.sum(p), q / xp.sum(q, axis=-1, keepdims=True)
    return xp.sum((p - q) * (xp.log(p) - xp.log(q)), axis=-1)


def score(options: Options, known: Known, state: State, batch: Batch) -> Any:
    """Likeness of the densities. features (N, D) -> (N,) float64."""
    xp = namespace(batch.features)
    parts = []
    for _, *both in spaces(state.head, batch.features):
        found = [divergence(state.densities[i], density(x, *state.ranges[i], options.bins) @ state.running[i],
                            EPSILON[i]) for i, x in enumerate(both)]
        z = xp.reshape(both[1], (both[1].shape[0], options.repeats, -1))
        top = xp.max(z, axis=-1, keepdims=True)
        probability = xp.mean(float64(1 / xp.sum(xp.exp(z - top), axis=-1)), axis=-1)
        parts.append(options.lambda_2 * probability - found[0] - options.lambda_1 * found[1])
    return xp.concat(parts)
