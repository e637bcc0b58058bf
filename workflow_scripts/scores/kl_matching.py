"""KL matching: minus the smallest KL(p || d_c) to a class's mean posterior (Hendrycks et al., ICML 2022).

d_c is the mean softmax of the ID train images that the network assigns to class c. A class to which none is assigned
has no template and is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores.arrays import blocks, float64, logsumexp, namespace, positions
from workflow_scripts.scores.base import Batch, Known

SPEC = ScoreSpec(family="logits", needs={"logits", "train_logits"})


@dataclass(frozen=True)
class Options:
    """None: the score has no hyper-parameter."""


def fit(options: Options, known: Known) -> Any:
    """Log of the templates. train_logits (M, K) -> (C, K), C the number of classes that are ever predicted."""
    xp = namespace(known.train_logits)
    sums, counts = 0.0, 0.0
    for _, z in blocks(known.train_logits):
        assigned = float64(positions(z) == xp.argmax(z, axis=-1, keepdims=True))  # (rows, K) one-hot
        sums = sums + assigned.T @ xp.exp(z - logsumexp(z)[:, None])
        counts = counts + xp.sum(assigned, axis=0)
    seen = counts > 0
    return xp.log(xp.clip(sums[seen, :] / counts[seen][:, None], min=float(np.finfo(np.float64).tiny)))


def score(options: Options, known: Known, state: Any, batch: Batch) -> Any:
    """Minus the divergence from the nearest template. logits (N, K) -> (N,) float64, at most 0."""
    z = float64(batch.logits)
    xp = namespace(z)
    log_p = z - logsumexp(z)[:, None]
    p = xp.exp(log_p)
    return -xp.min(xp.sum(p * log_p, axis=-1, keepdims=True) - p @ state.T, axis=-1)
