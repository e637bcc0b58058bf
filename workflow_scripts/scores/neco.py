"""NECO: share of the feature's length in the principal subspace of the ID train features (Ben Ammar et al., ICLR 2024).

score = |P h| / |h|, with h standardised unit by unit by mean and standard deviation of the ID train features
(``standardise``), and P the projection on their ``dim`` principal directions. The authors' code multiplies it by the
largest logit for vision transformers, not for ResNets (``max_logit``); for DeiT and Swin it divides by the length of
the feature as it is, which is not offered here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Gt

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores.arrays import deviations, float64, moments, namespace
from workflow_scripts.scores.base import Batch, Known

SPEC = ScoreSpec(family="distance", needs={"features", "logits", "train_features"}, space={
    "dim": (4, 8, 16, 32, 64, 128, 256, 512)})


@dataclass(frozen=True)
class Options:
    dim: Annotated[int, Gt(0)] | None = None
    """Principal directions; left out: as many as classes, which is where collapsed features lie."""
    standardise: bool = True
    """Bring each unit to mean 0 and variance 1 first; a unit without variance is only centred."""
    max_logit: bool = False
    """Multiply by the largest logit, as for vision transformers."""


@dataclass(frozen=True)
class State:
    """(h - ``origin``) / ``scale``, both (D,), is projected on the columns of ``basis`` (D, dim)."""

    origin: Any
    scale: Any
    basis: Any


def fit(options: Options, known: Known) -> State:
    """The principal subspace.

    Raises:
        OODError: `dim` is no less than the size of a feature.
    """
    train = known.train_features
    xp, size = namespace(train), train.shape[1]
    if options.dim is not None and options.dim >= size:
        raise OODError(f"neco.dim: {options.dim} directions leave nothing of features of {size} values; choose fewer, "
                       "or leave it out")
    mean, covariance = moments(train)
    scale = deviations(mean, covariance) if options.standardise else xp.ones_like(mean)
    _, vectors = xp.linalg.eigh(covariance / scale / scale[:, None])  # rising
    return State(mean, scale, vectors)


def score(options: Options, known: Known, state: State, batch: Batch) -> Any:
    """Share of the length, times the largest logit. features (N, D) and logits (N, K) -> (N,) float64."""
    xp = namespace(batch.features)
    dim = options.dim or min(batch.logits.shape[-1], batch.features.shape[-1] - 1)
    x = (float64(batch.features) - state.origin) / state.scale
    inside = xp.linalg.vector_norm(x @ state.basis[:, -dim:], axis=-1)
    share = inside / xp.clip(xp.linalg.vector_norm(x, axis=-1), min=1e-12)
    return share * xp.max(float64(batch.logits), axis=-1) if options.max_logit else share
