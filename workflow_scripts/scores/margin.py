"""Margin: the largest softmax probability minus the second largest (the confidence ``margin`` of G-OE's evaluation).

The score is the margin minus 1: that is -(sum of the other probabilities + the second), a sum without cancellation, so
that images stay apart down to margins of 1 - 1e-300. The margin itself is 1 + score.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores.arrays import float64, max_log_softmax, namespace, positions
from workflow_scripts.scores.base import Batch, Known

SPEC = ScoreSpec(family="logits", needs={"logits"}, confidence={"": "plus_one"})


@dataclass(frozen=True)
class Options:
    """None."""


def score(options: Options, known: Known, state: None, batch: Batch) -> Any:
    """Margin minus 1. logits (N, K) -> (N,) float64 in -1..0; a single class gives 0."""
    z = float64(batch.logits)
    xp = namespace(z)
    p = xp.exp(z - xp.max(z, axis=-1, keepdims=True) + xp.expand_dims(max_log_softmax(z), axis=-1))
    others = xp.where(positions(z) == xp.argmax(z, axis=-1, keepdims=True), 0.0, p)
    return -(xp.sum(others, axis=-1) + xp.max(others, axis=-1))
