"""BATS: energy after clipping features to the typical range of the last batch norm (Zhu et al., NeurIPS 2022).

The range of unit j is beta_j -+ lam |gamma_j|, with beta and gamma the shift and scale of the last batch norm before
pooling; the pooled feature is clipped, as the authors of HIMPLoS evaluate it. ``mask`` and ``smooth`` add their parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Gt, Interval

from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores import himplos
from workflow_scripts.scores.arrays import float64, logsumexp, namespace
from workflow_scripts.scores.base import Batch, Known

SPEC = ScoreSpec(family="shaped features", needs={"features", "head", "batchnorm", "statistics"}, space={
    "lam": (0.5, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0)})


@dataclass(frozen=True)
class Options:
    lam: Annotated[float, Gt(0)] = 1.0
    """Half the range in standard deviations (lambda); 1 for CIFAR-10 and 0.8 for CIFAR-100 with DenseNet, 3.3 and 1.35
    with ResNet-18, 1.25 for ImageNet."""
    mask: Annotated[float, Interval(ge=0, le=100)] = 0.0
    """HIMPLoS's masking: the percentile of its p; 0 masks nothing."""
    smooth: bool = False
    """HIMPLoS's smoothing: scale the logits by the cosine to the prototype of the predicted class."""


def needs(options: Options) -> frozenset[str]:
    """Prototypes are read where they smooth."""
    return SPEC.needs if options.smooth else SPEC.needs - {"statistics"}


def fit(options: Options, known: Known) -> Any:
    """The masks (K, D) bool, or ``None``."""
    return himplos.head_mask(options.mask, known.head) if options.mask else None


def score(options: Options, known: Known, state: Any, batch: Batch) -> Any:
    """Energy of the clipped features. features (N, D) -> (N,) float64."""
    h = float64(batch.features)
    xp = namespace(h)
    middle, half = float64(known.batchnorm.bias), options.lam * xp.abs(float64(known.batchnorm.weight))
    shaped = xp.minimum(xp.maximum(h, middle - half), middle + half)
    means = known.statistics.class_means if options.smooth else None
    classes = himplos.predicted(known.head, h) if options.mask or options.smooth else None
    return logsumexp(himplos.logits(known.head, classes, h, shaped, state, means))
