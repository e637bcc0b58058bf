"""Relative Mahalanobis distance: class distance minus that to all ID data (Ren et al., arXiv 2106.09022).

score = - min_c (MD_c - MD_0): MD_c is the squared distance of ``mahalanobis``, MD_0 that to one Gaussian with the mean
and covariance of all ID train features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores import mahalanobis
from workflow_scripts.scores.arrays import float64, namespace
from workflow_scripts.scores.base import Batch, Known

SPEC = ScoreSpec(needs={"features", "statistics", "train_features", "train_labels"})


@dataclass(frozen=True)
class Options:
    """None: the score has no hyper-parameter."""


def fit(options: Options, known: Known) -> tuple[mahalanobis.Gaussians, mahalanobis.Gaussians]:
    """The class Gaussians, and the one of all train features.

    Raises:
        OODError: a class has no train feature.
    """
    xp = namespace(known.train_features)
    mean = float64(known.statistics.mean)
    one = xp.zeros_like(known.train_labels, dtype=xp.int64)
    whole = mahalanobis.gaussians(known.train_features, xp.expand_dims(mean, axis=0), one, mean)
    return mahalanobis.fit(options, known), whole


def score(options: Options, known: Known, state: tuple, batch: Batch) -> Any:
    """Minus the smallest relative distance. features (N, D) -> (N,) float64."""
    classes, whole = (mahalanobis.squared_distances(model, batch.features) for model in state)
    return -namespace(batch.features).min(classes - whole, axis=-1)
