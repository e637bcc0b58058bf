"""SCALE: energy of the whole feature times exp(sum / sum of its largest values) (Xu et al., ICLR 2024).

Like ASH-S, but nothing is pruned. An all-zero feature stays zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Interval

from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores.arrays import affine, float64, keep_largest, logsumexp, namespace
from workflow_scripts.scores.ash import boost, kept
from workflow_scripts.scores.base import Batch, Known

SPEC = ScoreSpec(family="shaped features", needs={"features", "head"}, space={
    "p": (65.0, 70.0, 75.0, 80.0, 85.0, 90.0, 95.0)})


@dataclass(frozen=True)
class Options:
    p: Annotated[float, Interval(ge=0, lt=100)] = 85.0
    """Percentage of each feature that is left out of the denominator; 85 for ImageNet ResNet-50 in the paper."""


def score(options: Options, known: Known, state: None, batch: Batch) -> Any:
    """Energy of the scaled features. features (N, D) -> (N,) float64."""
    h = float64(batch.features)
    xp = namespace(h)
    top = xp.where(keep_largest(h, kept(options.p, h.shape[-1])), h, 0.0)
    factor = boost(xp.sum(h, axis=-1, keepdims=True), xp.sum(top, axis=-1, keepdims=True))
    return logsumexp(affine(h * factor, known.head))
