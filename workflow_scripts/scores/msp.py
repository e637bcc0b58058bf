"""Maximum softmax probability (Hendrycks & Gimpel, ICLR 2017), as its logarithm.

The score is log max_k softmax(z)_k in float64. The logarithm is strictly increasing, so every ranking metric is that of
the probability; unlike the probability it has no ties at 1.0. The probability itself is exp(score).

With ``precision: float32`` the score is the probability in float32, as background resampling's release computes it
(defect bgresample.1g-10): it ties at 1.0 from a logit gap of about 17 on, and where more than 5 % of OOD do, its
FPR95 jumps to 100 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores.arrays import float64, max_log_softmax, namespace
from workflow_scripts.scores.base import Batch, Known

SPEC = ScoreSpec(family="logits",
                 needs={"logits"}, confidence={"precision=float32": "score", "": "exp"}, defects={"bgresample.1g-10": (
    "scores are float32 probabilities, tied where they saturate at 1",
    "a score of its own: module `msp` with `options: {precision: float32}`")})


@dataclass(frozen=True)
class Options:
    precision: Literal["float64", "float32"] = "float64"
    """`float64`: log-probability; `float32`: probability, with the ties of bgresample.1g-10."""


def score(options: Options, known: Known, state: None, batch: Batch) -> Any:
    """Log of the largest softmax probability, or the probability itself. logits (N, K) -> (N,) float64."""
    if options.precision == "float64":
        return max_log_softmax(float64(batch.logits))
    xp = namespace(batch.logits)
    logits = xp.astype(batch.logits, xp.float32, copy=False)
    shares = xp.exp(logits - xp.max(logits, axis=-1, keepdims=True))
    return float64(xp.max(shares, axis=-1) / xp.sum(shares, axis=-1))
