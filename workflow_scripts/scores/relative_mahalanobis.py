"""Relative Mahalanobis distance: class distance minus that to all ID data (Ren et al., arXiv 2106.09022).

score = - min_c (MD_c - MD_0): MD_c is the squared distance of ``mahalanobis``, MD_0 that to one Gaussian with the mean
and covariance of all ID train features. On features of length 1 (``unit``) it is RMDS++ (Mueller & Hein, ICML 2025).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores import mahalanobis
from workflow_scripts.scores.arrays import namespace
from workflow_scripts.scores.base import Batch, Known

SPEC = ScoreSpec(family="distance", needs={"features", "statistics", "train_features", "train_labels"}, space={
    "unit": (False, True)})


@dataclass(frozen=True)
class Options:
    unit: bool = False
    """Bring every feature to length 1 first (RMDS++)."""


def fit(options: Options, known: Known) -> tuple[mahalanobis.Gaussians, mahalanobis.Gaussians]:
    """The class Gaussians, and the one of all train features.

    Raises:
        OODError: a class has no train feature.
    """
    xp = namespace(known.train_features)
    classes = mahalanobis.fit(mahalanobis.Options(options.unit), known)
    one = xp.zeros_like(known.train_labels, dtype=xp.int64)
    centre = xp.expand_dims(classes.origin, axis=0)  # the mean of all
    return classes, mahalanobis.gaussians(known.train_features, centre, one, classes.origin, options.unit)


def score(options: Options, known: Known, state: tuple, batch: Batch) -> Any:
    """Minus the smallest relative distance. features (N, D) -> (N,) float64."""
    classes, whole = (mahalanobis.squared_distances(model, batch.features) for model in state)
    return -namespace(batch.features).min(classes - whole, axis=-1)
