"""CombOOD: likelihood of the feature by its neighbours and by a Gaussian (Rajasekaran et al., SDM 2024).

score = - D log d_K^2 - d_M^2, as in the authors' code: d_K is the distance to the K-th nearest ID train feature, whose
density falls with d_K^D for features of D values, and d_M the Mahalanobis distance from the mean of all ID train
features, each unit standardised, with ``ridge`` times the identity added to their covariance. The authors also make
each unit more normal by a power transform, and may take extremes of earlier layers for d_M; this is the form for
penultimate features without that transform.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge, Gt

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores import knn
from workflow_scripts.scores.arrays import deviations, float64, moments, namespace, spaced
from workflow_scripts.scores.base import Batch, Known

SPEC = ScoreSpec(family="distance", needs={"features", "train_features"}, bank="K", space={"K": (1, 10, 50, 100, 200)})


@dataclass(frozen=True)
class Options:
    K: Annotated[int, Gt(0)] = 50
    """Which neighbour; 50 in the released code."""
    ridge: Annotated[float, Ge(0)] = 1.0
    """Added to the covariance of the standardised units; 1 in the released code."""
    bank: Annotated[int, Gt(0)] = 50_000
    """ID train images among which neighbours are sought at most, evenly spaced: all of CIFAR."""


@dataclass(frozen=True)
class State:
    """``rows`` (M, D + 1), the bank with -|h|^2 / 2 as its last column; ``mean`` (D,); ``whiten`` (D, R), by which the
    deviation from it has the Mahalanobis distance as its length."""

    rows: Any
    mean: Any
    whiten: Any


def fit(options: Options, known: Known) -> State:
    """Bank and Gaussian.

    Raises:
        OODError: K is larger than the bank.
    """
    train = known.train_features
    xp = namespace(train)
    bank = spaced(train, options.bank)
    if bank.shape[0] < options.K:
        raise OODError(f"combood.K: the {options.K}-th neighbour was asked for, but the bank holds only "
                       f"{bank.shape[0]} ID train features; choose a smaller K or a larger bank")
    mean, covariance = moments(train)
    scale = deviations(mean, covariance)
    values, vectors = xp.linalg.eigh(covariance / scale / scale[:, None])  # rising
    values = values + options.ridge
    real = values > values.shape[0] * xp.finfo(xp.float64).eps * values[-1]
    whiten = vectors[:, real] / xp.sqrt(values[real]) / scale[:, None]
    squares = xp.sum(bank * bank, axis=-1, keepdims=True) / -2
    return State(xp.concat([bank, squares], axis=-1), mean, whiten)


def score(options: Options, known: Known, state: State, batch: Batch) -> Any:
    """Log-likelihood, up to a constant. features (N, D) -> (N,) float64."""
    xp = namespace(batch.features)
    query = xp.astype(batch.features, state.rows.dtype, copy=False)
    parts = ((start, state.rows[start:start + knn.BANK, :]) for start in range(0, state.rows.shape[0], knn.BANK))
    products, rows = knn.strongest(xp.concat([query, xp.ones_like(query[:, :1])], axis=-1), parts, options.K)
    last = xp.take_along_axis(rows, xp.argmin(products, axis=-1, keepdims=True), axis=-1)[:, 0]
    h = float64(batch.features)
    gap = h - float64(xp.take(state.rows, last, axis=0)[:, :-1])
    near = xp.clip(xp.sum(gap * gap, axis=-1), min=1e-24)
    x = (h - state.mean) @ state.whiten
    return -h.shape[-1] * xp.log(near) - xp.sum(x * x, axis=-1)
