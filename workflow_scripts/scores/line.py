"""LINe: energy with the important neurons and weights of the predicted class (Ahn et al., CVPR 2023).

The contribution C (K, D) of unit j to class c, the mean over class c of h_j dz_c/dh_j, is the class mean of h_j times
W_cj: exact, because the head is linear. Features are clipped; c is the class predicted from them. Units with C_cj at
most the p_a-th percentile of row c are switched off, and of the head only weights with |C_cj| W_kj above the p_w-th
percentile of that matrix stay. With ``smooth`` the logits are scaled by the cosine of the clipped feature to the
prototype of the class that they predict (HIMPLoS's smoothing, in the form of its authors).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Gt, Interval

from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores import himplos
from workflow_scripts.scores.arrays import affine, float64, logsumexp, namespace, percentile
from workflow_scripts.scores.base import Batch, Head, Known

SPEC = ScoreSpec(family="shaped features", needs={"features", "head", "statistics"}, space={
    "p_a": (10.0, 50.0, 90.0), "p_w": (10.0, 50.0, 90.0), "clip": (0.5, 0.8, 1.0, 1.5)})


@dataclass(frozen=True)
class Options:
    p_a: Annotated[float, Interval(ge=0, le=100)] = 10.0
    """Percentile of a class's contributions up to which units are switched off; 90 for CIFAR-10, 10 for CIFAR-100 and
    ImageNet."""
    p_w: Annotated[float, Interval(ge=0, le=100)] = 90.0
    """Percentile of a class's weighted contributions up to which weights are dropped; 90 for CIFAR, 10 for ImageNet."""
    clip: Annotated[float, Gt(0)] = 1.0
    """Upper clip of the features, in feature units; 1.0 for CIFAR, 0.8 for ImageNet."""
    smooth: bool = False
    """Scale the logits by the cosine to the prototype of the class that they predict."""


@dataclass(frozen=True)
class State:
    """``units`` (K, D) bool of each class, ``importance`` |C| (K, D), ``edges`` (K,) of each class's weights."""

    units: Any
    importance: Any
    edges: list[float]


def masks(options: Options, head: Head, contribution: Any) -> State:
    """What is kept for each class, from the contribution matrix (K, D). The K weight masks (K, D) each are too large to
    keep, 8 GB for ImageNet, so only their thresholds are."""
    xp = namespace(contribution)
    weight = float64(head.weight)
    units = contribution > percentile(contribution, options.p_a)[:, None]
    importance = xp.abs(contribution)
    edges = [float(percentile(xp.reshape(importance[c, :] * weight, (-1,)), options.p_w))
             for c in range(weight.shape[0])]
    return State(units, importance, edges)


def class_head(state: State, head: Head, c: int) -> Head:
    """The head of predicted class ``c``: weights (K, D) whose weighted contribution is above the threshold."""
    weight = float64(head.weight)
    keep = state.importance[c, :] * weight > state.edges[c]
    return Head(namespace(weight).where(keep, weight, 0.0), head.bias)


def fit(options: Options, known: Known) -> State:
    """Masks of every class from the class means."""
    return masks(options, known.head, float64(known.statistics.class_means) * float64(known.head.weight))


def score(options: Options, known: Known, state: State, batch: Batch) -> Any:
    """Energy of the class-specific units and weights. features (N, D) -> (N,) float64."""
    h = float64(batch.features)
    xp = namespace(h)
    h = xp.clip(h, max=options.clip)
    predicted = xp.argmax(affine(h, known.head), axis=-1)  # (N,)
    out = xp.zeros_like(h[:, 0])
    for c in map(int, xp.unique_values(predicted)):
        rows = predicted == c
        active = xp.where(state.units[c, :], h[rows, :], 0.0)
        z = affine(active, class_head(state, known.head, c))
        if options.smooth:
            z = z * himplos.cosines(known.statistics.class_means, xp.argmax(z, axis=-1), h[rows, :])[:, None]
        out[rows] = logsumexp(z)
    return out
