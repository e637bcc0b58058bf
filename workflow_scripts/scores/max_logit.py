"""Maximum logit: max_k z_k (Hendrycks et al., ICML 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores.arrays import float64, namespace
from workflow_scripts.scores.base import Batch, Known

SPEC = ScoreSpec(family="logits", needs={"logits"})


@dataclass(frozen=True)
class Options:
    """None: the score has no hyper-parameter."""


def score(options: Options, known: Known, state: None, batch: Batch) -> Any:
    """Largest logit. logits (N, K) -> (N,) float64."""
    return namespace(batch.logits).max(float64(batch.logits), axis=-1)
