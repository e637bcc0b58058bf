"""OpenMax: probability of the unknown class, from the tails of the logits' distances (Bendale & Boult, CVPR 2016).

The mean logits m_c of each class are those of its ID train images that the network classifies correctly. A Weibull
distribution F_c is fitted by maximum likelihood to the ``tail`` largest distances of these images from m_c, shifted as
libMR does so that the smallest of them lies at 10,000. Of an image the alpha largest logits lose a part to the unknown
class: that of rank i keeps z (1 - w F_c(d)), w = (alpha + 1 - i) / alpha. The paper's score is minus the softmax
probability of the unknown class among K + 1; here it is the logit of the known ones, which rises with it and does not
saturate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Gt, Interval
from array_api_compat import device

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores.arrays import blocks, classified, float64, largest, logsumexp, namespace
from workflow_scripts.scores.base import Batch, Known

SPEC = ScoreSpec(family="logits", needs={"logits", "train_logits", "train_labels"}, space={
    "tail": (10, 20, 30, 40, 50), "alpha": (1, 3, 5, 10, 15, 20), "euclid_weight": (0.0, 0.25, 0.5, 0.75, 1.0)})
SHIFT = 10_000.0  # libMR's translation
STEPS = 60  # of bisection


@dataclass(frozen=True)
class Options:
    tail: Annotated[int, Gt(1)] = 20
    """Largest distances of a class that its distribution is fitted to, fewer where it has fewer; 20 in the paper."""
    alpha: Annotated[int, Gt(0)] = 10
    """Largest logits that are revised, all where there are fewer classes; 10 in the paper, 3 in OpenOOD."""
    euclid_weight: Annotated[float, Interval(ge=0, le=1)] = 1.0
    """Share of the Euclidean distance; the rest is that of the cosine distance."""


@dataclass(frozen=True)
class State:
    """``means`` (K, K); of each class's Weibull distribution the ``least`` of its tail, ``shape`` and ``log_scale``,
    (K,) each: F(d) = 1 - exp(-exp(shape (log(1 + (d - least) / 10,000) - log_scale)))."""

    means: Any
    least: Any
    shape: Any
    log_scale: Any


def distances(options: Options, z: Any, means: Any) -> Any:
    """Of logits to the means, Euclidean and cosine mixed. (N, K), (C, K) -> (N, C)."""
    xp = namespace(z)
    total = 0.0
    if options.euclid_weight > 0:
        squares = xp.sum(z * z, axis=-1)[:, None] + xp.sum(means * means, axis=-1) - 2 * (z @ means.T)
        total = total + options.euclid_weight * xp.sqrt(xp.clip(squares, min=0.0))
    if options.euclid_weight < 1:
        lengths = xp.linalg.vector_norm(z, axis=-1)[:, None] * xp.linalg.vector_norm(means, axis=-1)
        total = total + (1 - options.euclid_weight) * (1 - (z @ means.T) / xp.clip(lengths, min=1e-12))
    return total


def weibull(tails: Any, real: Any) -> tuple[Any, Any, Any]:
    """Maximum likelihood: least value, shape and logarithm of the scale of each row's distribution.

    Args:
        tails: (C, T) distances.
        real: (C, T) bool; False where a class has fewer.

    The shape k solves 1/k + mean(u) = sum(u exp(k u)) / sum(exp(k u)) for the logarithms u, here relative to their
    largest. The right side rises with k and the left one falls, so bisection of log k finds it.
    """
    xp = namespace(tails)
    least = xp.min(xp.where(real, tails, xp.inf), axis=-1)
    u = xp.log1p(xp.where(real, tails - least[:, None], 0.0) / SHIFT)
    top = xp.max(u, axis=-1, keepdims=True)
    count = xp.sum(float64(real), axis=-1)
    v = xp.where(real, u - top, 0.0)
    mean = xp.sum(v, axis=-1) / count
    low, high = xp.zeros_like(mean), xp.zeros_like(mean) + 40.0  # of log k; equal values have no largest likelihood
    for _ in range(STEPS):
        middle = (low + high) / 2
        k = xp.exp(middle)
        weight = xp.where(real, xp.exp(k[:, None] * v), 0.0)
        below = 1 / k + mean > xp.sum(weight * v, axis=-1) / xp.sum(weight, axis=-1)
        low, high = xp.where(below, middle, low), xp.where(below, high, middle)
    k = xp.exp((low + high) / 2)
    power = xp.sum(xp.where(real, xp.exp(k[:, None] * v), 0.0), axis=-1) / count
    return least, k, top[:, 0] + xp.log(power) / k


def fit(options: Options, known: Known) -> State:
    """Means and distributions of the classes.

    Raises:
        OODError: a class with fewer than two correctly classified train images.
    """
    train, labels = known.train_logits, known.train_labels
    xp = namespace(train)
    sums, counts = 0.0, 0.0
    for rows, z in blocks(train):
        right = float64(classified(z, labels[rows]))  # (rows, K)
        sums = sums + right.T @ z
        counts = counts + xp.sum(right, axis=0)
    few = [c for c, count in enumerate(counts) if int(count) < 2]
    if few:
        raise OODError(f"openmax: class {few[0]} has {int(counts[few[0]])} train images that the network classifies "
                       "correctly, expected at least 2; train the network longer or leave 'openmax' out of the scores")
    means = sums / counts[:, None]
    tails = xp.full((means.shape[0], options.tail), -xp.inf, dtype=xp.float64, device=device(means))
    for rows, z in blocks(train):
        found = xp.where(classified(z, labels[rows]), distances(options, z, means), -xp.inf).T  # (K, rows)
        tails, _ = largest(xp.concat([tails, found], axis=-1), options.tail)
    return State(means, *weibull(tails, tails > -xp.inf))


def score(options: Options, known: Known, state: State, batch: Batch) -> Any:
    """The logit of the known classes. logits (N, K) -> (N,) float64."""
    z = float64(batch.logits)
    xp = namespace(z)
    alpha = min(options.alpha, z.shape[-1])
    order = xp.argsort(z, axis=-1, descending=True, stable=True)
    rank = xp.argsort(order, axis=-1, stable=True)  # 0 is the largest
    omega = xp.clip(float64(alpha - rank), min=0.0) / alpha
    u = xp.log1p(xp.clip((distances(options, z, state.means) - state.least) / SHIFT, min=-1 + 1e-12))
    outlier = -xp.expm1(-xp.exp(xp.clip(state.shape * (u - state.log_scale), max=700.0)))  # F_c(d)
    lost = z * omega * outlier
    return logsumexp(z - lost) - xp.sum(lost, axis=-1)
