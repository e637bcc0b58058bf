"""SHE: inner product of the feature with the stored pattern of its class (Zhang et al., ICLR 2023).

The pattern of a class is the mean feature of its ID train images that the network classifies correctly; that of the
predicted class is compared. The paper has no hyper-parameter; its ablation compares other measures (``measure``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores.arrays import blocks, classified, float64, namespace
from workflow_scripts.scores.base import Batch, Known

SPEC = ScoreSpec(family="distance",
                 needs={"features", "logits", "train_features", "train_logits", "train_labels"}, space={
    "measure": ("inner_product", "cosine", "euclidean")})


@dataclass(frozen=True)
class Options:
    measure: Literal["inner_product", "cosine", "euclidean"] = "inner_product"
    """How feature and pattern are compared: `inner_product` as in the paper, their cosine, or minus their distance."""


def fit(options: Options, known: Known) -> Any:
    """The patterns. -> (K, D) float64.

    Raises:
        OODError: a class without a correctly classified train image.
    """
    xp = namespace(known.train_features)
    sums, counts = 0.0, 0.0
    for rows, h in blocks(known.train_features):
        correct = float64(classified(float64(known.train_logits[rows, ...]), known.train_labels[rows]))  # (rows, K)
        sums = sums + correct.T @ h
        counts = counts + xp.sum(correct, axis=0)
    empty = [c for c, count in enumerate(counts) if int(count) == 0]
    if empty:
        raise OODError(f"she: class {empty[0]} has no train image that the network classifies correctly ({len(empty)} "
                       f"of {len(counts)} classes have none), and so no pattern; train the network longer or leave "
                       "'she' out of the scores")
    return sums / counts[:, None]


def score(options: Options, known: Known, state: Any, batch: Batch) -> Any:
    """Likeness to the pattern of the predicted class. features (N, D) and logits (N, K) -> (N,) float64."""
    h = float64(batch.features)
    xp = namespace(h)
    pattern = xp.take(state, xp.argmax(batch.logits, axis=-1), axis=0)
    if options.measure == "euclidean":
        return -xp.linalg.vector_norm(h - pattern, axis=-1)
    product = xp.sum(h * pattern, axis=-1)
    if options.measure == "cosine":
        lengths = xp.linalg.vector_norm(h, axis=-1) * xp.linalg.vector_norm(pattern, axis=-1)
        product = product / xp.clip(lengths, min=1e-12)
    return product
