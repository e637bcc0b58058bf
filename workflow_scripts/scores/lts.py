"""LTS: energy of logits scaled by the share of the strongest activations (Djurisic et al., arXiv 2409.01175).

The factor is (S / S_p)^2: S the sum of the rectified feature, S_p that of its largest p per cent. Features are not
changed and no train image is needed. The paper does not mention the rectification, the authors' code has it; it
concerns only networks whose features may be negative. A feature without a positive value keeps its logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Interval

from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores.arrays import float64, keep_largest, logsumexp, namespace
from workflow_scripts.scores.ash import kept
from workflow_scripts.scores.base import Batch, Known

SPEC = ScoreSpec(family="shaped features", needs={"features", "logits"}, space={"p": (1.0, 5.0, 10.0, 15.0, 25.0)})


@dataclass(frozen=True)
class Options:
    p: Annotated[float, Interval(gt=0, le=100)] = 5.0
    """Percentage of the largest values in the denominator; 5 for all networks in the paper."""


def score(options: Options, known: Known, state: None, batch: Batch) -> Any:
    """Energy of the scaled logits. features (N, D) and logits (N, K) -> (N,) float64."""
    xp = namespace(batch.features)
    h = xp.clip(float64(batch.features), min=0.0)
    top = xp.sum(xp.where(keep_largest(h, kept(100 - options.p, h.shape[-1])), h, 0.0), axis=-1)
    factor = xp.where(top > 0, xp.sum(h, axis=-1), 1.0) / xp.where(top > 0, top, 1.0)
    return logsumexp(float64(batch.logits) * (factor * factor)[:, None])
