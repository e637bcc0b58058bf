"""NCI: closeness of the centred feature to the weights of its class (Liu & Qin, CVPR 2025).

score = w_y . (h - mu) / |h - mu| + alpha |h|_1, with y the predicted class and mu the mean ID train feature. Where the
features have collapsed, centred ID features point along the weight vectors, and OOD features lie nearer to the origin.
OpenOOD tries alpha = 0.0001, 0.001, 0.01 and 0.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge

from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores.arrays import affine, float64, namespace
from workflow_scripts.scores.base import Batch, Known

SPEC = ScoreSpec(family="distance", needs={"features", "head", "statistics"}, space={
    "alpha": (0.0, 0.0001, 0.001, 0.01, 0.1, 1.0)})


@dataclass(frozen=True)
class Options:
    alpha: Annotated[float, Ge(0)] = 0.0001
    """Weight of the feature's L1 norm; chosen on validation images in the paper."""


def score(options: Options, known: Known, state: None, batch: Batch) -> Any:
    """Closeness to the class weights, and the norm. features (N, D) -> (N,) float64."""
    h = float64(batch.features)
    xp = namespace(h)
    predicted = xp.argmax(affine(h, known.head), axis=-1)
    weight = xp.take(float64(known.head.weight), predicted, axis=0)  # (N, D)
    centred = h - float64(known.statistics.mean)
    length = xp.clip(xp.linalg.vector_norm(centred, axis=-1), min=1e-12)
    return xp.sum(weight * centred, axis=-1) / length + options.alpha * xp.sum(xp.abs(h), axis=-1)
