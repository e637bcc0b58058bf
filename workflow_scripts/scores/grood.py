"""GROOD: minus the distance of the image's gradient to those of ID train images (ElAraby et al., TMLR 2025).

The classifier is that of the nearest of K class means and one OOD prototype o, the softmax of minus the distances. The
gradient of its cross-entropy by o is P_o (h - o) / |h - o|, with P_o the probability of o: no backward pass is needed.
The score is minus the distance of this gradient to the K-th nearest of those of the ID train images that the network
classifies correctly. The OOD prototype here is the mean of the class means, one of the choices of the released code;
its others need OOD images, noise images or mixtures of ID images passed through the network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Gt

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores import knn
from workflow_scripts.scores.arrays import blocks, float64, logsumexp, namespace, spaced
from workflow_scripts.scores.base import Batch, Known

SPEC = ScoreSpec(family="gradient",
                 needs={"features", "statistics", "train_features", "train_logits", "train_labels"}, bank="K", space={
    "K": (1, 10, 20, 50, 100)})


@dataclass(frozen=True)
class Options:
    K: Annotated[int, Gt(0)] = 1
    """Which neighbour; 1 in the released code."""
    bank: Annotated[int, Gt(0)] = 50_000
    """ID train images in the bank at most, evenly spaced: all of CIFAR."""


def gradients(means: Any, features: Any) -> Any:
    """Gradient of the loss by the OOD prototype. means (C, D), features (N, D) -> (N, D) float64."""
    h, means = float64(features), float64(means)
    xp = namespace(h)
    away = h - xp.mean(means, axis=0)
    squares = xp.sum(h * h, axis=-1)[:, None] + xp.sum(means * means, axis=-1) - 2 * (h @ means.T)
    to_classes = xp.sqrt(xp.clip(squares, min=0.0))
    to_ood = xp.linalg.vector_norm(away, axis=-1, keepdims=True)
    share = xp.exp(-to_ood[:, 0] - logsumexp(-xp.concat([to_classes, to_ood], axis=-1)))
    return away * (share / xp.clip(to_ood[:, 0], min=1e-12))[:, None]


def extended(rows: Any) -> Any:
    """Rows with -|x|^2 / 2 as a last column: products with (query, 1) rise as distances fall."""
    xp = namespace(rows)
    return xp.concat([rows, xp.sum(rows * rows, axis=-1, keepdims=True) / -2], axis=-1)


def fit(options: Options, known: Known) -> Any:
    """Gradients of the bank, extended, in the features' precision. -> (M, D + 1).

    Raises:
        OODError: fewer than K images of the bank are classified correctly.
    """
    features, logits, labels = (spaced(part, options.bank) for part in (
        known.train_features, known.train_logits, known.train_labels))
    xp = namespace(features)
    right = xp.argmax(logits, axis=-1) == labels
    rows = features[right, ...]
    if rows.shape[0] < options.K:
        raise OODError(f"grood.K: neighbour {options.K} was asked for, but the network classifies only {rows.shape[0]} "
                       f"of {features.shape[0]} ID train images of the bank correctly; choose a smaller K or train the "
                       "network longer")
    parts = []
    for _, h in blocks(rows):
        part = extended(gradients(known.statistics.class_means, h))
        parts.append(xp.astype(part, features.dtype, copy=False))
    return xp.concat(parts)


def score(options: Options, known: Known, state: Any, batch: Batch) -> Any:
    """Minus the distance to the K-th nearest gradient. features (N, D) -> (N,) float64, at most 0."""
    query = gradients(known.statistics.class_means, batch.features)
    xp = namespace(query)
    parts = ((start, state[start:start + knn.BANK, :]) for start in range(0, state.shape[0], knn.BANK))
    asked = xp.astype(xp.concat([query, xp.ones_like(query[:, :1])], axis=-1), state.dtype, copy=False)
    products, rows = knn.strongest(asked, parts, options.K)
    last = xp.take_along_axis(rows, xp.argmin(products, axis=-1, keepdims=True), axis=-1)[:, 0]
    return -xp.linalg.vector_norm(query - float64(xp.take(state, last, axis=0)[:, :-1]), axis=-1)
