"""BATS: energy after clipping features to the typical range of the last batch norm (Zhu et al., NeurIPS 2022).

The range of unit j is beta_j -+ lam |gamma_j|, with beta and gamma the shift and scale of the last batch norm before
pooling; the pooled feature is clipped, as the authors of HIMPLoS evaluate it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Gt

from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores.arrays import affine, float64, logsumexp, namespace
from workflow_scripts.scores.base import Batch, Known

SPEC = ScoreSpec(needs={"features", "head", "batchnorm"})


@dataclass(frozen=True)
class Options:
    lam: Annotated[float, Gt(0)] = 1.0
    """Half the range in standard deviations (lambda); 1 for CIFAR-10 and 0.8 for CIFAR-100 with DenseNet, 3.3 and 1.35
    with ResNet-18, 1.25 for ImageNet."""


def score(options: Options, known: Known, state: None, batch: Batch) -> Any:
    """Energy of the clipped features. features (N, D) -> (N,) float64."""
    h = float64(batch.features)
    xp = namespace(h)
    middle, half = float64(known.batchnorm.bias), options.lam * xp.abs(float64(known.batchnorm.weight))
    return logsumexp(affine(xp.minimum(xp.maximum(h, middle - half), middle + half), known.head))
