"""Temperature-scaled MSP: log max_k softmax(z / T)_k (Guo et al., ICML 2017; ODIN without its perturbation).

T is given, not fitted. As in ``msp`` the score is the logarithm of the probability: strictly increasing, without ties
at 1.0; the probability is exp(score).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Gt

from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores.arrays import float64, max_log_softmax
from workflow_scripts.scores.base import Batch, Known

SPEC = ScoreSpec(family="logits", needs={"logits"}, space={"temperature": (1.0, 2.0, 5.0, 10.0, 100.0, 1000.0)})


@dataclass(frozen=True)
class Options:
    temperature: Annotated[float, Gt(0)] = 2.0
    """T; 2 in DFB's evaluation (which calls this score ODIN), 1000 in the ODIN paper."""


def score(options: Options, known: Known, state: None, batch: Batch) -> Any:
    """Log of the largest tempered softmax probability. logits (N, K) -> (N,) float64, at most 0."""
    return max_log_softmax(float64(batch.logits) / options.temperature)
