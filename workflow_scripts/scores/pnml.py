"""pNML: regret of the last layer's predictive normalised maximum likelihood (Bibas et al., NeurIPS 2021).

With x the unit feature, P the pseudo-inverse of X^T X over the unit ID train features, p the head's softmax of x and
g = x^T P x / (1 + x^T P x), or the squared length of what the train features do not span where that is larger:

    regret = log sum_i p_i / (p_i + (1 - p_i) p_i^g) / log K;    score = -regret.

The head sees the unit feature, so its bias weighs more than in training. The released code appends a constant 1 to x
for the bias (``bias``); pytorch-ood does not. There are no other hyper-parameters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores.arrays import affine, blocks, float64, logsumexp, namespace, positions, unit
from workflow_scripts.scores.base import Batch, Known

SPEC = ScoreSpec(family="distance", needs={"features", "head", "train_features"}, space={"bias": (False, True)})


@dataclass(frozen=True)
class Options:
    bias: bool = False
    """Let the constant 1 of the bias count as a feature in P, as the released code does."""


def inputs(options: Options, features: Any) -> Any:
    """What the last layer takes: unit features, with a constant where ``bias``. (N, D) -> (N, D or D + 1) float64."""
    x = unit(float64(features))
    xp = namespace(x)
    return xp.concat([x, xp.ones_like(x[:, :1])], axis=-1) if options.bias else x


def fit(options: Options, known: Known) -> tuple[Any, Any]:
    """P, and the projection on what the train features do not span, (D, D) each."""
    gram = 0.0
    for _, h in blocks(known.train_features):
        x = inputs(options, h)
        gram = gram + x.T @ x
    xp = namespace(gram)
    values, vectors = xp.linalg.eigh(gram)  # rising
    real = values > values.shape[0] * xp.finfo(xp.float64).eps * values[-1]
    rest = vectors[:, ~real]
    return (vectors[:, real] / values[real]) @ vectors[:, real].T, rest @ rest.T


def score(options: Options, known: Known, state: tuple[Any, Any], batch: Batch) -> Any:
    """Minus the regret. features (N, D) -> (N,) float64, in -1..0."""
    inverse, beyond = state
    x = inputs(options, batch.features)
    xp = namespace(x)
    inside, outside = (xp.sum((x @ part) * x, axis=-1) for part in (inverse, beyond))
    g = xp.maximum(outside, inside / (1 + inside))
    z = affine(unit(float64(batch.features)), known.head)
    log_p = z - logsumexp(z)[:, None]
    p = xp.exp(log_p)
    winner = positions(z) == xp.argmax(z, axis=-1, keepdims=True)
    others = xp.where(winner, xp.sum(xp.where(winner, 0.0, p), axis=-1, keepdims=True), 1 - p)  # 1 - p, exact near 1
    changed = others * xp.exp(g[:, None] * log_p)
    beside = xp.where(winner, -changed, p) / (p + changed)  # the winner's term less 1, the others' terms
    return -xp.log1p(xp.sum(beside, axis=-1)) / math.log(z.shape[-1])
