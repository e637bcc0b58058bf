"""CTM: largest cosine of the feature to a class mean (class typical matching; Ngoc-Hieu et al., ICML workshops 2023).

score = max_c cos(h, mu_c), with mu_c the mean ID train feature of class c. It has no hyper-parameter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores.arrays import float64, namespace, unit
from workflow_scripts.scores.base import Batch, Known

SPEC = ScoreSpec(family="distance", needs={"features", "statistics"})


@dataclass(frozen=True)
class Options:
    """None: the score has no hyper-parameter."""


def score(options: Options, known: Known, state: None, batch: Batch) -> Any:
    """Largest cosine. features (N, D) -> (N,) float64, in -1..1; of an all-zero feature 0."""
    cosines = unit(float64(batch.features)) @ unit(float64(known.statistics.class_means)).T
    return namespace(cosines).max(cosines, axis=-1)
