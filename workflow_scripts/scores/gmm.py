"""GMM: log-likelihood of the feature under one Gaussian for each class, each with a covariance of its own.

score = log sum_c pi_c N(h; mu_c, S_c + ridge I), pi_c the share of class c among the ID train images. It differs from
``mahalanobis`` in the covariances and in that all classes count. A classical model without a paper of its own; OpenOOD
and pytorch-ood have it. With ``dim`` the features are first projected on principal directions of all ID train features:
K covariances of D^2 numbers each are 32 GB for ImageNet's ResNet-50, 2 GB at 512 directions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Gt

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores.arrays import blocks, float64, logsumexp, namespace
from workflow_scripts.scores.base import Batch, Known

SPEC = ScoreSpec(family="distance", needs={"features", "statistics", "train_features", "train_labels"}, space={
    "ridge": (1e-6, 1e-4, 1e-2)})
LARGE = 2 * 2**30  # bytes of the covariances


@dataclass(frozen=True)
class Options:
    ridge: Annotated[float, Gt(0)] = 1e-6
    """Added to the diagonal of each covariance, which is singular where a class has fewer images than features."""
    dim: Annotated[int, Gt(0)] | None = None
    """Principal directions; left out: the features as they are."""


@dataclass(frozen=True)
class State:
    """(h - ``origin``) @ ``basis`` (D, d) is scored; ``means`` (C, d), ``whiten`` of each class (d, d), by which the
    deviation has the Mahalanobis distance as its length, and ``constant`` (C,)."""

    origin: Any
    basis: Any
    means: Any
    whiten: list[Any]
    constant: Any


def fit(options: Options, known: Known) -> State:
    """Gaussians of the classes.

    Raises:
        OODError: a class without train features, more directions than features, or covariances of more than 2 GB.
    """
    train, counts = known.train_features, known.statistics.counts
    xp, size = namespace(train), train.shape[1]
    classes, kept = len(counts), options.dim or size
    empty = [c for c, count in enumerate(counts) if int(count) == 0]
    if empty:
        raise OODError(f"statistics: class {empty[0]} has no train features; every class needs at least one")
    if kept > size:
        raise OODError(f"gmm.dim: {kept} directions were asked for of features of {size} values; choose at most {size}")
    if classes * kept * kept * 8 > LARGE:
        raise OODError(f"gmm.dim: the covariances of {classes} classes in {kept} directions take "
                       f"{classes * kept * kept * 8 / 2**30:.1f} GB, expected at most {LARGE / 2**30:.0f}; choose "
                       f"{math.isqrt(LARGE // 8 // classes)} directions or fewer")
    origin = float64(known.statistics.mean)
    scatter = 0.0
    for _, h in blocks(train):
        scatter = scatter + (h - origin).T @ (h - origin)
    basis = xp.linalg.eigh(scatter)[1][:, size - kept:]
    means = (float64(known.statistics.class_means) - origin) @ basis
    moments = [0.0] * classes
    for rows, h in blocks(train):
        x = (h - origin) @ basis
        label = known.train_labels[rows]
        for c in map(int, xp.unique_values(label)):
            deviation = x[label == c, ...] - means[c, :]
            moments[c] = moments[c] + deviation.T @ deviation
    whiten, constant = [], []
    for c, count in enumerate(counts):
        values, vectors = xp.linalg.eigh(moments[c] / int(count))
        values = xp.clip(values, min=0.0) + options.ridge
        whiten.append(vectors / xp.sqrt(values))
        share = math.log(int(count) / train.shape[0])
        constant.append(share - (xp.sum(xp.log(values)) + kept * math.log(2 * math.pi)) / 2)
        moments[c] = 0.0
    return State(origin, basis, means, whiten, xp.stack(constant))


def score(options: Options, known: Known, state: State, batch: Batch) -> Any:
    """Log-likelihood. features (N, D) -> (N,) float64."""
    x = (float64(batch.features) - state.origin) @ state.basis
    xp = namespace(x)
    squares = []
    for c in range(state.means.shape[0]):
        away = (x - state.means[c, :]) @ state.whiten[c]
        squares.append(xp.sum(away * away, axis=-1))
    return logsumexp(state.constant - xp.stack(squares, axis=-1) / 2)
