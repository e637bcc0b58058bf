"""k nearest neighbours: minus the distance to the K-th nearest ID train feature (Sun et al., ICML 2022, section 3).

Features are normalised to length 1. The search is exact: blocks of the matrix product of queries and bank in the bank's
own precision, of which the K largest survive. The distance to the K-th neighbour so found is then computed in float64,
since 2 - 2 cos would lose half of its digits. Memory holds one bank and one block, whatever the number of queries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Gt
from array_api_compat import device

from workflow_scripts.errors import OODError
from workflow_scripts.scores.arrays import float64, largest, namespace
from workflow_scripts.scores.base import Batch, Known

NEEDS = frozenset({"features", "train_features"})
CHOOSE = "train"  # what a sweep reads to choose options of this score
QUERIES, BANK = 1024, 32768  # a block: 128 MB of float32 products


@dataclass(frozen=True)
class Options:
    K: Annotated[int, Gt(0)] = 50
    """Which neighbour; 50 for CIFAR-10, 200 for CIFAR-100, 1000 for ImageNet in the paper (whole train set as bank)."""


def unit(x: Any) -> Any:
    """Rows of length 1; a zero row stays zero. (N, D) -> (N, D) of the same dtype."""
    xp = namespace(x)
    return x / xp.clip(xp.linalg.vector_norm(x, axis=-1, keepdims=True), min=1e-12)


def fit(options: Options, known: Known) -> Any:
    """The bank: unit features with -|h|^2 / 2 as a last column, against which a query has a 1. (M, D) -> (M, D + 1).

    The product is then rising exactly as the distance falls, also for a zero row.

    Raises:
        OODError: K is larger than the bank.
    """
    size = known.train_features.shape[0]
    if size < options.K:
        raise OODError(f"knn.K: the {options.K}-th neighbour was asked for, but there are only {size} ID train "
                       "features; choose a smaller K")
    train = known.train_features
    bank = namespace(train).empty((size, train.shape[1] + 1), dtype=train.dtype, device=device(train))
    for start in range(0, size, BANK):
        part = unit(train[start:start + BANK, :])
        bank[start:start + BANK, :-1] = part
        bank[start:start + BANK, -1] = namespace(part).sum(part * part, axis=-1) / -2
    return bank


def nearest(queries: Any, bank: Any, k: int) -> Any:
    """Row in ``bank`` of each query's k-th neighbour. (N, D + 1), (M, D + 1) -> (N,)."""
    xp = namespace(queries)
    values = indices = None
    for start in range(0, bank.shape[0], BANK):
        products = queries @ bank[start:start + BANK, :].T
        found, columns = largest(products, min(k, products.shape[-1]))
        columns = columns + start
        if values is not None:
            found, columns = xp.concat([values, found], axis=-1), xp.concat([indices, columns], axis=-1)
            best = largest(found, min(k, found.shape[-1]))[1]
            found, columns = xp.take_along_axis(found, best, axis=-1), xp.take_along_axis(columns, best, axis=-1)
        values, indices = found, columns
    last = xp.argmin(values, axis=-1, keepdims=True)
    return xp.squeeze(xp.take_along_axis(indices, last, axis=-1), axis=-1)


def score(options: Options, known: Known, state: Any, batch: Batch) -> Any:
    """Minus the distance to the K-th neighbour. features (N, D) -> (N,) float64, in -2..0."""
    xp = namespace(batch.features)
    distances = []
    for start in range(0, batch.features.shape[0], QUERIES):
        query = xp.astype(unit(batch.features[start:start + QUERIES, :]), state.dtype, copy=False)
        row = nearest(xp.concat([query, xp.ones_like(query[:, :1])], axis=-1), state, options.K)
        gap = float64(query) - float64(xp.take(state, row, axis=0)[:, :-1])
        distances.append(xp.linalg.vector_norm(gap, axis=-1))
    return -xp.concat(distances) if distances else float64(batch.features[:, 0])
