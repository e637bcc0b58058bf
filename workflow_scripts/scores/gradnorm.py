"""GradNorm: L1 norm of the head weight's gradient of KL(uniform || softmax(z / T)) (Huang et al., NeurIPS 2021).

The gradient is the outer product of (softmax(z / T) - 1/K) / T and h, so its L1 norm is the product of both L1 norms:
no backward pass. The released code sums over classes instead of averaging: K times this value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Gt

from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores.arrays import float64, logsumexp, namespace
from workflow_scripts.scores.base import Batch, Known

SPEC = ScoreSpec(family="gradient", needs={"features", "logits"}, space={"temperature": (0.5, 1.0, 2.0, 4.0)})


@dataclass(frozen=True)
class Options:
    temperature: Annotated[float, Gt(0)] = 1.0
    """T of the softmax; 1 in the paper."""


def score(options: Options, known: Known, state: None, batch: Batch) -> Any:
    """Norm of the gradient. features (N, D) and logits (N, K) -> (N,) float64."""
    xp = namespace(batch.features, batch.logits)
    z = float64(batch.logits) / options.temperature
    gap = xp.exp(z - logsumexp(z)[:, None]) - 1 / z.shape[-1]
    return xp.sum(xp.abs(float64(batch.features)), axis=-1) * xp.sum(xp.abs(gap), axis=-1) / options.temperature
