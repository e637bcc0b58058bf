"""DICE with ReAct: the sparse head of ``dice`` on features clipped as in ``react`` (Sun & Li, ECCV 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Gt, Interval

from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores import dice, react
from workflow_scripts.scores.base import Batch, Head, Known

SPEC = ScoreSpec(family="shaped features", needs={"features", "head", "statistics", "train_features"}, space={
    "p": (10.0, 30.0, 50.0, 70.0, 90.0), "percentile": (85.0, 90.0, 95.0, 99.0)})


@dataclass(frozen=True)
class Options:
    p: Annotated[float, Interval(ge=0, le=100)] = 90.0
    """Percentile of the contributions up to which weights are dropped; 90 for CIFAR, 70 for ImageNet in the paper."""
    percentile: Annotated[float, Interval(ge=0, le=100)] = 90.0
    """The clip level is this percentile of all ID train features. Not used when `clip` is given."""
    clip: Annotated[float, Gt(0)] | None = None
    """The clip level itself, in feature units; the train features are then not needed."""


def needs(options: Options) -> frozenset[str]:
    """A level that is given needs no train features."""
    return dice.SPEC.needs | react.needs(options)


def fit(options: Options, known: Known) -> tuple[Head, float]:
    """The sparse head (of unclipped mean features, as released) and the clip level."""
    return dice.sparse_head(options.p, known.head, known.statistics.mean), react.fit(options, known)


def score(options: Options, known: Known, state: tuple[Head, float], batch: Batch) -> Any:
    """Energy of the sparse head on clipped features. features (N, D) -> (N,) float64."""
    head, level = state
    return react.score(options, Known(head=head), level, batch)
