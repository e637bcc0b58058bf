"""DICE: energy with a head of which only the largest mean contributions are kept (Sun & Li, ECCV 2022).

The contribution of weight (k, j) is W_kj times the mean ID train feature j. One threshold holds for the whole matrix,
the p-th percentile; a contribution equal to it is dropped. ``mask`` and ``smooth`` add HIMPLoS's parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Interval

from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores import himplos
from workflow_scripts.scores.arrays import float64, logsumexp, namespace, percentile
from workflow_scripts.scores.base import Batch, Head, Known

SPEC = ScoreSpec(family="shaped features", needs={"features", "head", "statistics"}, space={
    "p": (10.0, 30.0, 50.0, 70.0, 90.0)})


@dataclass(frozen=True)
class Options:
    p: Annotated[float, Interval(ge=0, le=100)] = 90.0
    """Percentile of the contributions up to which weights are dropped; 90 for CIFAR, 70 for ImageNet in the paper."""
    mask: Annotated[float, Interval(ge=0, le=100)] = 0.0
    """HIMPLoS's masking: the percentile of its p; 0 masks nothing."""
    smooth: bool = False
    """HIMPLoS's smoothing: scale the logits by the cosine to the prototype of the predicted class."""


@dataclass(frozen=True)
class State:
    """``head`` without weights of small contribution; ``masks`` (K, D) bool of each class, or ``None``."""

    head: Head
    masks: Any


def sparse_head(p: float, head: Head, mean: Any) -> Head:
    """The head without the weights whose contribution is at most the p-th percentile. ``mean`` (D,)."""
    xp = namespace(head.weight)
    weight = float64(head.weight)
    contribution = weight * float64(mean)  # (K, D)
    keep = contribution > percentile(xp.reshape(contribution, (-1,)), p)
    return Head(xp.where(keep, weight, 0.0), head.bias)


def fit(options: Options, known: Known) -> State:
    """The sparse head, and the masks."""
    return State(sparse_head(options.p, known.head, known.statistics.mean),
                 himplos.head_mask(options.mask, known.head) if options.mask else None)


def score(options: Options, known: Known, state: State, batch: Batch) -> Any:
    """Energy of the sparse head. features (N, D) -> (N,) float64."""
    h = float64(batch.features)
    means = known.statistics.class_means if options.smooth else None
    classes = himplos.predicted(known.head, h) if options.mask or options.smooth else None
    return logsumexp(himplos.logits(state.head, classes, h, h, state.masks, means))
