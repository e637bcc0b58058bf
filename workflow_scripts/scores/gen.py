"""GEN: minus the generalised entropy of the M largest probabilities (Liu et al., CVPR 2023).

score = - sum over the M largest p of p^gamma (1 - p)^gamma. Probabilities are not clipped, and 1 - p of the largest is
the sum of the others, so confident rows stay apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Gt, Interval

from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores.arrays import float64, logsumexp, namespace, positions
from workflow_scripts.scores.base import Batch, Known

SPEC = ScoreSpec(family="logits", needs={"logits"}, space={
    "gamma": (0.01, 0.1, 0.5), "M": (3, 10, 50, 100, 200, 500, 1000)})


@dataclass(frozen=True)
class Options:
    gamma: Annotated[float, Interval(gt=0, lt=1)] = 0.1
    """Exponent, in (0, 1); 0.1 in the paper."""
    M: Annotated[int, Gt(0)] = 100
    """How many of the largest probabilities count, all of them where a network has fewer classes; 100 for ImageNet."""


def score(options: Options, known: Known, state: None, batch: Batch) -> Any:
    """Minus the generalised entropy. logits (N, K) -> (N,) float64, at most 0."""
    xp = namespace(batch.logits)
    z = xp.sort(float64(batch.logits), axis=-1, descending=True)
    p = xp.exp(z - logsumexp(z)[:, None])  # (N, K), falling
    rest = xp.where(positions(p) == 0, xp.sum(p[:, 1:], axis=-1, keepdims=True), 1 - p)
    return -xp.sum((p * rest)[:, :options.M] ** options.gamma, axis=-1)
