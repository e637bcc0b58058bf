"""Maximum softmax probability (Hendrycks & Gimpel, ICLR 2017), as its logarithm.

The score is log max_k softmax(z)_k in float64. The logarithm is strictly increasing, so every ranking metric is that of
the probability; unlike the probability it has no ties at 1.0. The probability itself is exp(score).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from workflow_scripts.scores.arrays import float64, max_log_softmax
from workflow_scripts.scores.base import Batch, Known

NEEDS = frozenset({"logits"})


@dataclass(frozen=True)
class Options:
    """None: the baseline has no hyper-parameter."""


def score(options: Options, known: Known, state: None, batch: Batch) -> Any:
    """Log of the largest softmax probability. logits (N, K) -> (N,) float64, at most 0."""
    return max_log_softmax(float64(batch.logits))
