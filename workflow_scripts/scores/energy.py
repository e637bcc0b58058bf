"""Energy: T * logsumexp(z / T) (Liu et al., NeurIPS 2020, eq. 4, sign turned so that higher = more ID)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Gt

from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores.arrays import float64, logsumexp
from workflow_scripts.scores.base import Batch, Known

SPEC = ScoreSpec(family="logits", needs={"logits"}, confidence={"": "score"}, space={
    "temperature": (0.5, 1.0, 2.0, 5.0, 10.0)})


@dataclass(frozen=True)
class Options:
    temperature: Annotated[float, Gt(0)] = 1.0
    """T; 1 in every one of the five papers."""


def score(options: Options, known: Known, state: None, batch: Batch) -> Any:
    """Free energy with its sign turned. logits (N, K) -> (N,) float64."""
    return options.temperature * logsumexp(float64(batch.logits) / options.temperature)
