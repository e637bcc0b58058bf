"""Mahalanobis distance of the penultimate feature to the nearest class mean (Lee et al., NeurIPS 2018, eq. 2).

score = - min_c (h - mu_c)^T S^+ (h - mu_c), with one covariance S for all classes, the mean over ID train images of the
squared deviations from their own class mean, and its pseudo-inverse (directions without variance are ignored). Neither
input perturbation nor earlier layers are used. On features of length 1 (``unit``) it is Mahalanobis++ (Mueller & Hein,
ICML 2025), which makes no other change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from array_api_compat import device

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores.arrays import blocks, float64, namespace, unit
from workflow_scripts.scores.base import Batch, Known

SPEC = ScoreSpec(family="distance", needs={"features", "statistics", "train_features", "train_labels"}, space={
    "unit": (False, True)})


@dataclass(frozen=True)
class Options:
    unit: bool = False
    """Bring every feature to length 1 first (Mahalanobis++)."""


@dataclass(frozen=True)
class Gaussians:
    """``origin`` (D,) is subtracted, then ``whiten`` (D, R) makes the covariance the identity; ``centres`` (C, R). With
    ``unit`` features are brought to length 1 before."""

    origin: Any
    whiten: Any
    centres: Any
    unit: bool = False


def gaussians(features: Any, centres: Any, labels: Any, origin: Any, to_unit: bool = False) -> Gaussians:
    """Gaussians of one covariance at ``centres`` (C, D), for train ``features`` (M, D) of ``labels`` (M,)."""
    xp = namespace(features)
    scatter = 0.0
    for rows, h in blocks(features):
        deviation = (unit(h) if to_unit else h) - xp.take(centres, labels[rows], axis=0)
        scatter = scatter + deviation.T @ deviation
    values, vectors = xp.linalg.eigh(scatter / features.shape[0])  # rising
    real = values > values.shape[0] * xp.finfo(xp.float64).eps * values[-1]
    whiten = vectors[:, real] / xp.sqrt(values[real])
    return Gaussians(origin, whiten, (centres - origin) @ whiten, to_unit)


def unit_means(features: Any, labels: Any, classes: int) -> tuple[Any, Any]:
    """Class means (C, D) of the train ``features`` brought to length 1, and their mean over all images (D,)."""
    xp = namespace(features)
    numbers = xp.arange(classes, device=device(labels))
    sums, counts = 0.0, 0.0
    for rows, h in blocks(features):
        member = float64(labels[rows, None] == numbers)  # (rows, C)
        sums = sums + member.T @ unit(h)
        counts = counts + xp.sum(member, axis=0)
    return sums / counts[:, None], xp.sum(sums, axis=0) / features.shape[0]


def squared_distances(model: Gaussians, features: Any) -> Any:
    """Squared Mahalanobis distances. (N, D) -> (N, C) float64."""
    xp = namespace(features)
    h = float64(features)
    x = ((unit(h) if model.unit else h) - model.origin) @ model.whiten  # (N, R)
    squares = xp.sum(x * x, axis=-1)[:, None] + xp.sum(model.centres * model.centres, axis=-1)
    return xp.clip(squares - 2 * (x @ model.centres.T), min=0.0)


def fit(options: Options, known: Known) -> Gaussians:
    """Class means and the tied covariance.

    Raises:
        OODError: a class has no train feature.
    """
    xp = namespace(known.train_features)
    empty = [c for c, count in enumerate(known.statistics.counts) if int(count) == 0]
    if empty:
        raise OODError(f"statistics: class {empty[0]} has no train features; every class needs at least one")
    labels = xp.astype(known.train_labels, xp.int64, copy=False)
    means, mean = float64(known.statistics.class_means), float64(known.statistics.mean)
    if options.unit:
        means, mean = unit_means(known.train_features, labels, means.shape[0])
    return gaussians(known.train_features, means, labels, mean, options.unit)


def score(options: Options, known: Known, state: Gaussians, batch: Batch) -> Any:
    """Minus the squared distance to the nearest class mean. features (N, D) -> (N,) float64, at most 0."""
    return -namespace(batch.features).min(squared_distances(state, batch.features), axis=-1)
