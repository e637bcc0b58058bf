"""CF-OOD: minus the concentration-free outlier factor of the feature (Angiulli et al., 2026; OpenOOD's cfood).

In a bank of n unit ID train features, the factor is the least share kappa of n for which at least a share ``k`` of the
bank has the image among its kappa n nearest neighbours: reverse neighbours, which do not crowd together in many
dimensions. kappa is one of 230 shares, finer where they are small, as in the authors' code, which takes distances to
the bank's other members.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from annotated_types import Gt, Interval
from array_api_compat import device

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores.arrays import float64, namespace, order_statistics, spaced, unit
from workflow_scripts.scores.base import Batch, Known

SPEC = ScoreSpec(family="distance", needs={"features", "train_features"}, least=3, space={
    "k": (0.001, 0.005, 0.01, 0.05, 0.1)})
SHARES = np.concatenate([np.linspace(0.001, 0.1, 100), np.linspace(0.105, 0.5, 81), np.linspace(0.51, 0.99, 49)])
ROWS = 256  # images whose distances to the bank are held at once


@dataclass(frozen=True)
class Options:
    k: Annotated[float, Interval(gt=0, le=1)] = 0.01
    """Share of the bank that must have the image among its neighbours; OpenOOD tries 0.001, 0.005, 0.01 and 0.05."""
    bank: Annotated[int, Gt(2)] = 5000
    """ID train images in the bank at most, evenly spaced; the authors take 10 % of CIFAR, which is this many."""


@dataclass(frozen=True)
class State:
    """``bank`` (n, D) of unit features; ``edges`` (S, n), the squared distance of each member to its neighbour at each
    share; ``shares`` (S + 1,), the last of them 1, for images that are nobody's neighbour."""

    bank: Any
    edges: Any
    shares: Any


def squared_distances(x: Any, y: Any) -> Any:
    """Of unit rows. (N, D), (M, D) -> (N, M)."""
    xp = namespace(x)
    lengths = xp.sum(x * x, axis=-1)[:, None] + xp.sum(y * y, axis=-1)
    return xp.clip(lengths - 2 * (x @ y.T), min=0.0)


def fit(options: Options, known: Known) -> State:
    """Distances of the bank's members to each other.

    Raises:
        OODError: a bank of fewer than three.
    """
    bank = unit(float64(spaced(known.train_features, options.bank)))
    xp, size = namespace(bank), bank.shape[0]
    if size < 3:
        raise OODError(f"cf_ood.bank: a bank of {size} ID train features has no neighbours to rank; it needs "
                       "at least 3")
    places = np.unique((SHARES * size - 1).astype(int) + 1)  # 0 is the member itself
    places = places[(places > 0) & (places < size)]
    shares = [float(SHARES[(SHARES * size - 1).astype(int) + 1 == place].min()) for place in places]
    edges = []
    for start in range(0, size, ROWS):
        found = squared_distances(bank[start:start + ROWS, :], bank)
        edges.append(xp.stack(order_statistics(found, [int(place) for place in places])))
    return State(bank, xp.concat(edges, axis=-1), xp.asarray([*shares, 1.0], dtype=xp.float64, device=device(bank)))


def first_share(edges: Any, distances: Any, wanted: int) -> Any:
    """Number of the least share at which ``wanted`` members count an image, by bisection, since more do as it grows.

    edges (S, n), rising with the share; distances (N, n) -> (N,), S where no share is enough.
    """
    xp = namespace(edges)
    low = xp.zeros(distances.shape[0], dtype=xp.int64, device=device(distances))
    high = low + edges.shape[0]
    for _ in range(math.ceil(math.log2(edges.shape[0] + 1))):
        middle = (low + high) // 2
        reach = xp.take(edges, xp.clip(middle, max=edges.shape[0] - 1), axis=0)  # (N, n)
        enough = xp.sum(reach >= distances, axis=-1, dtype=xp.int64) >= wanted
        unknown = low < high
        low, high = xp.where(unknown & ~enough, middle + 1, low), xp.where(unknown & enough, middle, high)
    return low


def score(options: Options, known: Known, state: State, batch: Batch) -> Any:
    """Minus the outlier factor. features (N, D) -> (N,) float64, in -1..0."""
    x = unit(float64(batch.features))
    xp = namespace(x)
    wanted = max(math.ceil(options.k * state.bank.shape[0] - 1e-9), 1)
    factors = []
    for start in range(0, x.shape[0], ROWS):
        number = first_share(state.edges, squared_distances(x[start:start + ROWS, :], state.bank), wanted)
        factors.append(xp.take(state.shares, number, axis=0))
    return -xp.concat(factors)
