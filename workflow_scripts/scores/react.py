"""ReAct: energy after clipping the penultimate features from above (Sun et al., NeurIPS 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Gt, Interval

from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores.arrays import affine, float64, logsumexp, namespace, percentile_of_all
from workflow_scripts.scores.base import Batch, Known

SPEC = ScoreSpec(family="shaped features", needs={"features", "head", "train_features"}, space={
    "percentile": (85.0, 90.0, 95.0, 99.0)})


@dataclass(frozen=True)
class Options:
    percentile: Annotated[float, Interval(ge=0, le=100)] = 90.0
    """The clip level is this percentile of all ID train features; 90 in the paper. Not used when `clip` is given."""
    clip: Annotated[float, Gt(0)] | None = None
    """The clip level itself, in feature units; the train features are then not needed."""


def needs(options: Options) -> frozenset[str]:
    """A level that is given needs no train features."""
    return SPEC.needs if options.clip is None else SPEC.needs - {"train_features"}


def fit(options: Options, known: Known) -> float:
    """The clip level."""
    if options.clip is not None:
        return options.clip
    return percentile_of_all(known.train_features, options.percentile)


def score(options: Options, known: Known, state: float, batch: Batch) -> Any:
    """Energy of the clipped features. features (N, D) -> (N,) float64."""
    h = float64(batch.features)
    return logsumexp(affine(namespace(h).clip(h, max=state), known.head))
