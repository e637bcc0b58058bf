"""Negative entropy of the softmax: sum_k p_k log p_k (the confidence ``entropy`` of G-OE's evaluation)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores.arrays import float64, max_log_softmax, namespace
from workflow_scripts.scores.base import Batch, Known

SPEC = ScoreSpec(family="logits", needs={"logits"}, confidence={"": "score"})


@dataclass(frozen=True)
class Options:
    """None."""


def score(options: Options, known: Known, state: None, batch: Batch) -> Any:
    """Negative entropy in nats. logits (N, K) -> (N,) float64 in -log K .. 0, without ties at saturation."""
    z = float64(batch.logits)
    xp = namespace(z)
    log_p = z - xp.max(z, axis=-1, keepdims=True) + xp.expand_dims(max_log_softmax(z), axis=-1)
    return xp.sum(xp.exp(log_p) * log_p, axis=-1)
