"""Relation: how strongly an image is related to the ID train images (Kim et al., Neural Relation Graph, NeurIPS 2023).

The relation of two images is the product of two likenesses, max(0, cos(h, h_i)) and p . p_i, with p the softmax; those
of at most ``threshold`` count as 0. score = sum over the bank of relation^power.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Gt, Interval

from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores.arrays import float64, logsumexp, namespace, spaced, unit
from workflow_scripts.scores.base import Batch, Known

SPEC = ScoreSpec(family="distance", needs={"features", "logits", "train_features", "train_logits"}, space={
    "power": (1.0, 2.0, 4.0, 6.0, 8.0)})
QUERIES, BANK = 512, 16384  # a block: 32 MB of float32 relations


@dataclass(frozen=True)
class Options:
    power: Annotated[float, Gt(0)] = 1.0
    """Exponent (t); OpenOOD tries 1, 2, 4, 6 and 8."""
    threshold: Annotated[float, Interval(ge=0, lt=1)] = 0.03
    """Relations up to this are left out; 0.03 in the released code."""
    bank: Annotated[int, Gt(0)] = 50_000
    """ID train images in the bank at most, evenly spaced: all of CIFAR."""


def softmax(logits: Any) -> Any:
    """(N, K) -> (N, K) float64; what is below 1e-15 is 0, since products of denormal numbers are slow."""
    z = float64(logits)
    xp = namespace(z)
    log_p = z - logsumexp(z)[:, None]
    return xp.where(log_p > math.log(1e-15), xp.exp(log_p), 0.0)


def fit(options: Options, known: Known) -> tuple[Any, Any]:
    """Unit features (M, D) and probabilities (M, K) of the bank, in the features' precision."""
    features, logits = (spaced(part, options.bank) for part in (known.train_features, known.train_logits))
    return unit(features), namespace(features).astype(softmax(logits), features.dtype, copy=False)


def score(options: Options, known: Known, state: tuple[Any, Any], batch: Batch) -> Any:
    """Sum of the relations. features (N, D) and logits (N, K) -> (N,) float64, at least 0."""
    bank, posteriors = state
    xp = namespace(batch.features)
    features = xp.astype(unit(batch.features), bank.dtype, copy=False)
    p = xp.astype(softmax(batch.logits), bank.dtype, copy=False)
    sums = []
    for start in range(0, features.shape[0], QUERIES):
        rows = slice(start, start + QUERIES)
        total = 0.0
        for first in range(0, bank.shape[0], BANK):
            part = slice(first, first + BANK)
            relations = xp.clip(features[rows, :] @ bank[part, :].T, min=0.0) * (p[rows, :] @ posteriors[part, :].T)
            relations = xp.where(relations > options.threshold, relations, 0.0)
            if options.power != 1:
                relations = relations ** options.power
            total = total + xp.sum(relations, axis=-1, dtype=xp.float64)
        sums.append(total)
    return xp.concat(sums)
