"""ASH: energy after pruning and rescaling each image's penultimate feature (Djurisic et al., ICLR 2023, alg. 1-3).

The features are non-negative (after ReLU and pooling). Of D values the largest D - round(D p / 100) stay, exactly that
many (of equal values the first). P leaves them as they are, S multiplies them by exp(sum before / sum after), B gives
each the same share of the sum before. An all-zero feature stays zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Interval

from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores.arrays import affine, float64, keep_largest, logsumexp, namespace
from workflow_scripts.scores.base import Batch, Known

SPEC = ScoreSpec(family="shaped features", needs={"features", "head"}, space={
    "p": (65.0, 70.0, 75.0, 80.0, 85.0, 90.0, 95.0)})


@dataclass(frozen=True)
class Options:
    variant: Literal["p", "s", "b"] = "s"
    """`p` prune, `s` prune and scale, `b` prune and binarise."""
    p: Annotated[float, Interval(ge=0, lt=100)] = 90.0
    """Percentage of each feature that is pruned; for ImageNet 60 (P), 90 (S), 65 (B) in the paper."""


def kept(p: float, dimension: int) -> int:
    """How many of ``dimension`` values stay when ``p`` per cent are pruned; at least one."""
    return max(dimension - round(dimension * p / 100), 1)


def boost(before: Any, after: Any) -> Any:
    """exp(before / after), and 1 where nothing is active (0 / 0)."""
    xp = namespace(before)
    return xp.exp(xp.where(after > 0, before, 0.0) / xp.where(after > 0, after, 1.0))


def score(options: Options, known: Known, state: None, batch: Batch) -> Any:
    """Energy of the shaped features. features (N, D) -> (N,) float64."""
    h = float64(batch.features)
    xp = namespace(h)
    k = kept(options.p, h.shape[-1])
    keep = keep_largest(h, k)
    before = xp.sum(h, axis=-1, keepdims=True)
    shaped = xp.where(keep, h, 0.0)
    if options.variant == "b":
        shaped = xp.where(keep, before / k, 0.0)
    elif options.variant == "s":
        shaped = shaped * boost(before, xp.sum(shaped, axis=-1, keepdims=True))
    return logsumexp(affine(shaped, known.head))
