"""fDBD: mean distance of the feature to the decision boundaries (Liu & Qin, ICML 2024).

The head separates the predicted class y from class c by a hyperplane, at the distance (z_y - z_c) / |w_y - w_c| from h.
The score is the mean of these distances over all other classes, divided by the distance of h from the mean ID train
feature. Classes of equal weights have no boundary and count as distance 0. The paper has no hyper-parameter; the
authors' later code may divide by the length of h instead (option ``regulariser``), and sums over the classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores.arrays import affine, float64, namespace
from workflow_scripts.scores.base import Batch, Known

SPEC = ScoreSpec(family="distance", needs={"features", "head", "statistics"}, space={"regulariser": ("mean", "norm")})


@dataclass(frozen=True)
class Options:
    regulariser: Literal["mean", "norm"] = "mean"
    """What the distances are divided by: `mean`, the distance of the feature from the mean ID train feature, as in the
    paper; `norm`, the length of the feature."""


def needs(options: Options) -> frozenset[str]:
    """The mean train feature is read where it is the regulariser."""
    return SPEC.needs if options.regulariser == "mean" else SPEC.needs - {"statistics"}


def fit(options: Options, known: Known) -> Any:
    """|w_i - w_j| of each pair of classes, computed row by row, since 2 - 2 cos would lose digits. -> (K, K)."""
    weight = float64(known.head.weight)
    xp = namespace(weight)
    rows = [xp.linalg.vector_norm(weight - weight[c, :], axis=-1) for c in range(weight.shape[0])]
    return xp.stack(rows)


def score(options: Options, known: Known, state: Any, batch: Batch) -> Any:
    """Regularised mean distance to the boundaries. features (N, D) -> (N,) float64, at least 0."""
    h = float64(batch.features)
    xp = namespace(h)
    z = affine(h, known.head)
    between = xp.take(state, xp.argmax(z, axis=-1), axis=0)  # (N, K)
    gaps = xp.max(z, axis=-1, keepdims=True) - z
    distances = xp.where(between > 0, gaps, 0.0) / xp.where(between > 0, between, 1.0)
    origin = float64(known.statistics.mean) if options.regulariser == "mean" else 0.0
    length = xp.linalg.vector_norm(h - origin, axis=-1)
    return xp.sum(distances, axis=-1) / (z.shape[-1] - 1) / xp.clip(length, min=1e-8)
