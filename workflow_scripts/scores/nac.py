"""NAC: coverage of the neurons' states by ID train images (Liu et al., ICLR 2024; of the penultimate layer).

The state of unit j is sigmoid(alpha h_j g_j), with g the gradient of KL(uniform || softmax(z)) by the feature h. The
head is linear, so g = W^T (p - 1/K) without a backward pass. The interval 0..1 is cut into M bins; the coverage of a
state is the number of ID train images in its bin of unit j over ``enough``, at most 1. score = mean coverage of the
units. The paper sums layers; that of earlier ones needs gradients through the network and is not offered here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Gt

from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores.arrays import affine, blocks, float64, logsumexp, namespace, positions
from workflow_scripts.scores.base import Batch, Head, Known

SPEC = ScoreSpec(family="distance", needs={"features", "head", "train_features"}, space={
    "alpha": (10.0, 100.0, 1000.0, 3000.0), "M": (50, 500), "enough": (5, 10, 50, 500)})


@dataclass(frozen=True)
class Options:
    alpha: Annotated[float, Gt(0)] = 100.0
    """Steepness of the sigmoid; 100 for CIFAR-10 (ResNet-18) and 3000 for ImageNet (ResNet-50) in the released code."""
    M: Annotated[int, Gt(1)] = 50
    """Bins; 50 in the released code."""
    enough: Annotated[int, Gt(0)] = 50
    """Train images that cover a bin wholly (O*); 50 for CIFAR-10, 10 for ImageNet, of 1,000 images each."""


def bins(options: Options, head: Head, features: Any) -> Any:
    """Bin of each unit's state. (N, D) -> (N, D) int64 in 0..M-1."""
    h = float64(features)
    xp = namespace(h)
    z = affine(h, head)
    gradient = (xp.exp(z - logsumexp(z)[:, None]) - 1 / z.shape[-1]) @ float64(head.weight)
    half = options.alpha * h * gradient / 2
    state = (xp.tanh(half) + 1) / 2  # the sigmoid, without overflow
    return xp.clip(xp.astype(xp.floor(state * options.M), xp.int64), max=options.M - 1)


def fit(options: Options, known: Known) -> Any:
    """Coverage of each unit's bins. -> (D * M,) float64."""
    size = known.train_features.shape[1]
    counts = 0
    for _, h in blocks(known.train_features):
        xp = namespace(h)
        places = bins(options, known.head, h) + positions(h) * options.M
        counts = counts + xp.bincount(xp.reshape(places, (-1,)), minlength=size * options.M)
    return namespace(counts).clip(float64(counts) / options.enough, max=1.0)


def score(options: Options, known: Known, state: Any, batch: Batch) -> Any:
    """Mean coverage. features (N, D) -> (N,) float64, in 0..1."""
    xp = namespace(batch.features)
    places = bins(options, known.head, batch.features) + positions(batch.features) * options.M
    covered = xp.take(state, xp.reshape(places, (-1,)), axis=0)
    return xp.mean(xp.reshape(covered, places.shape), axis=-1)
