"""Kernel PCA: minus the reconstruction error of the mapped feature (Fang et al., NeurIPS 2024; CoP and CoRP).

A feature is brought to length 1, the map of the cosine kernel (CoP), and for CoRP mapped on by M random Fourier
features of the Gaussian kernel exp(-gamma |x - y|^2): sqrt(2 / M) cos(w . x + u), w ~ N(0, 2 gamma), u uniform in
0..2 pi. About the mean of the mapped ID train features, the error is the length of what the first principal directions
leave; there are as many of them as explain the share ``explained`` of the variance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Gt, Interval
from array_api_compat import device

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores.arrays import blocks, float64, namespace, unit
from workflow_scripts.scores.base import Batch, Known

SPEC = ScoreSpec(family="distance", needs={"features", "train_features"}, space={
    "explained": (0.8, 0.9, 0.95, 0.99), "gamma": (0.5, 1.0, 2.0, 4.0)})


@dataclass(frozen=True)
class Options:
    kernel: Literal["cosine", "gaussian"] = "gaussian"
    """`cosine`: CoP; `gaussian`: of the unit features, CoRP."""
    explained: Annotated[float, Interval(gt=0, lt=1)] = 0.9
    """Share of the variance that the principal directions explain."""
    gamma: Annotated[float, Gt(0)] = 1.0
    """Inverse width of the Gaussian kernel, for unit features."""
    M: Annotated[int, Gt(0)] | None = None
    """Random features; left out: four times as many as features, at most 4,096."""
    seed: Annotated[int, Ge(0)] = 0
    """Seed of the random features."""


@dataclass(frozen=True)
class State:
    """``directions`` (D, M) and ``phases`` (M,) of the random features, or ``None``; the ``mean`` of the mapped train
    features, and an orthonormal ``basis`` of what the principal directions leave."""

    directions: Any
    phases: Any
    mean: Any
    basis: Any


def mapped(directions: Any, phases: Any, features: Any) -> Any:
    """The feature map of the kernel. (N, D) -> (N, D or M) float64."""
    x = unit(float64(features))
    if directions is None:
        return x
    return math.sqrt(2 / phases.shape[0]) * namespace(x).cos(x @ directions + phases)


def fit(options: Options, known: Known) -> State:
    """The map and the directions that are left.

    Raises:
        OODError: the principal directions are all directions.
    """
    train = known.train_features
    xp, size = namespace(train), train.shape[1]
    directions = phases = None
    if options.kernel == "gaussian":
        random = np.random.default_rng(options.seed)
        count = options.M or min(4 * size, 4096)
        drawn = random.normal(0, math.sqrt(2 * options.gamma), (size, count)), random.uniform(0, 2 * np.pi, count)
        directions, phases = (xp.asarray(part, device=device(train)) for part in drawn)
    sums = moments = 0.0
    for _, h in blocks(train):
        x = mapped(directions, phases, h)
        sums = sums + xp.sum(x, axis=0)
        moments = moments + x.T @ x
    mean = sums / train.shape[0]
    values, vectors = xp.linalg.eigh(moments / train.shape[0] - mean[:, None] * mean)  # rising
    values = xp.clip(values, min=0.0)
    left = int(xp.sum(float64(xp.cumulative_sum(values) <= (1 - options.explained) * xp.sum(values))))
    if left == 0:
        raise OODError(f"kpca.explained: all {values.shape[0]} directions are needed to explain {options.explained} of "
                       "the variance of the ID train features, which leaves no error; choose a smaller share")
    return State(directions, phases, mean, vectors[:, :left])


def score(options: Options, known: Known, state: State, batch: Batch) -> Any:
    """Minus the length of the error. features (N, D) -> (N,) float64, at most 0."""
    x = mapped(state.directions, state.phases, batch.features) - state.mean
    return -namespace(x).linalg.vector_norm(x @ state.basis, axis=-1)
