"""VRA: energy after suppressing low and clipping high activations (Xu et al., NeurIPS 2023).

With a and b two quantiles of a unit's ID train features, an activation below a becomes 0, one above b becomes b, and
between them it is raised by gamma (VRA+; 0 is VRA). The released code takes a pair of quantiles for each unit on CIFAR,
and the same two levels for all units on ImageNet. Of its variants VRA++, a sum of powers of the activations, is not
offered here. OpenOOD and pytorch-ood instead raise what is below a to a (``low_to: edge``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Interval

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores.arrays import affine, float64, logsumexp, namespace, percentile, percentile_of_all, spaced
from workflow_scripts.scores.base import Batch, Known

SPEC = ScoreSpec(family="shaped features", needs={"features", "head", "train_features"}, space={
    "low": (10.0, 30.0, 50.0, 60.0, 70.0), "high": (85.0, 90.0, 95.0, 99.0), "gamma": (0.0, 0.3, 0.6)})


@dataclass(frozen=True)
class Options:
    low: Annotated[float, Interval(ge=0, le=100)] = 60.0
    """Percentile of the ID train features below which activations are suppressed; 60 for CIFAR (DenseNet)."""
    high: Annotated[float, Interval(ge=0, le=100)] = 95.0
    """Percentile from which activations are clipped; 90 for CIFAR-10, 95 for CIFAR-100 and for VRA+. For ImageNet the
    release gives the levels themselves: 0.5 and 1 for ResNet-50, 1 and 2 for BiT."""
    gamma: Annotated[float, Ge(0)] = 0.0
    """Added between the two levels; VRA+ takes 0.6 for CIFAR and for BiT, 0.3 for ResNet-50 on ImageNet."""
    low_to: Literal["zero", "edge"] = "zero"
    """What low activations become: 0 as in the paper, or the lower level."""
    per_unit: bool = True
    """Take the percentiles of each unit alone; false: those of all numbers."""
    bank: Annotated[int, Gt(0)] = 50_000
    """ID train images that the percentiles of each unit are of at most, evenly spaced: all of CIFAR."""


def fit(options: Options, known: Known) -> tuple[Any, Any]:
    """The two levels, numbers or (D,).

    Raises:
        OODError: the lower percentile is above the higher one.
    """
    if options.low > options.high:
        raise OODError(f"vra.low: the lower percentile {options.low} is above vra.high, {options.high}; swap them")
    if options.per_unit:
        columns = spaced(known.train_features, options.bank).T
        return percentile(columns, options.low), percentile(columns, options.high)
    return tuple(percentile_of_all(known.train_features, p) for p in (options.low, options.high))


def score(options: Options, known: Known, state: tuple[Any, Any], batch: Batch) -> Any:
    """Energy of the rectified features. features (N, D) -> (N,) float64."""
    h = float64(batch.features)
    xp = namespace(h)
    low, high = (level + xp.zeros_like(h) for level in state)
    floor = low if options.low_to == "edge" else xp.zeros_like(h)
    shaped = xp.where(h < low, floor, xp.where(h > high, high, h + options.gamma))
    return logsumexp(affine(shaped, known.head))
