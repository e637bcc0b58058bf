"""k nearest neighbours: minus the distance to the K-th nearest ID train feature (Sun et al., ICML 2022, section 3).

Features are normalised to length 1. The search is exact: blocks of the matrix product of queries and bank in the bank's
own precision, of which the K largest survive. The distance to the K-th neighbour so found is then computed in float64,
since 2 - 2 cos would lose half of its digits. Memory holds one bank and one block, whatever the number of queries; a
bank whose features stay in their file is read and normalised block by block, once for every 4,096 queries.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any

from annotated_types import Gt
from array_api_compat import device

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores.arrays import float64, in_memory, largest, namespace, unit
from workflow_scripts.scores.base import Batch, Known

SPEC = ScoreSpec(family="distance", needs={"features", "train_features"}, tune=("K",), bank="K", space={
    "K": (1, 10, 50, 100, 200, 500, 1000)})
QUERIES, BANK = 1024, 32768  # a block: 128 MB of float32 products
AT_ONCE = 4096  # queries for which a bank is read from its file once


@dataclass(frozen=True)
class Options:
    K: Annotated[int, Gt(0)] = 50
    """Which neighbour; 50 for CIFAR-10, 200 for CIFAR-100, 1000 for ImageNet in the paper (whole train set as bank)."""


def extended(features: Any, out: Any) -> Any:
    """Unit features with -|h|^2 / 2 as a last column, written to ``out``. (M, D), (M, D + 1) -> (M, D + 1).

    A query has a 1 there: the product is then rising exactly as the distance falls, also for a zero row.
    """
    part = unit(features)
    out[:, :-1] = part
    out[:, -1] = namespace(part).sum(part * part, axis=-1) / -2
    return out


@dataclass(frozen=True)
class Bank:
    """Train features ``rows`` (M, D + 1), ready, or (M, D) as they are in their file (``ready`` False)."""

    rows: Any
    ready: bool

    @property
    def dtype(self) -> Any:
        return self.rows.dtype

    def blocks(self) -> Iterator[tuple[int, Any]]:
        """(number of the first row, (m, D + 1) extended rows), one block after the other in the same memory."""
        room = None
        for start in range(0, self.rows.shape[0], BANK):
            part = self.rows[start:start + BANK, :]
            if not self.ready:
                if room is None:
                    room = namespace(part).empty((part.shape[0], part.shape[1] + 1), dtype=part.dtype)
                part = extended(part, room[:part.shape[0], :])
            yield start, part

    def take(self, numbers: Any) -> Any:
        """Unit rows of these numbers. (N,) -> (N, D)."""
        if self.ready:
            return namespace(self.rows).take(self.rows, numbers, axis=0)[:, :-1]
        return unit(self.rows.take(numbers))


def among_train(options: Options) -> Options:
    """The options by which a train image is scored, which finds itself first."""
    return replace(options, K=options.K + 1)


def fit(options: Options, known: Known) -> Bank:
    """The bank.

    Raises:
        OODError: K is larger than the bank.
    """
    train = known.train_features
    size = train.shape[0]
    if size < options.K:
        raise OODError(f"knn.K: the {options.K}-th neighbour was asked for, but there are only {size} ID train "
                       "features; choose a smaller K")
    if not in_memory(train):
        return Bank(train, ready=False)
    rows = namespace(train).empty((size, train.shape[1] + 1), dtype=train.dtype, device=device(train))
    for start in range(0, size, BANK):
        extended(train[start:start + BANK, :], rows[start:start + BANK, :])
    return Bank(rows, ready=True)


def strongest(queries: Any, blocks: Iterable[tuple[int, Any]], k: int) -> tuple[Any, Any]:
    """The k largest products of each query with the rows of a bank, and their rows, in no order.

    Args:
        queries: (N, D).
        blocks: (number of the first row, (m, D) rows), one block after the other.
        k: at most the number of rows.

    Returns:
        (N, k) products, (N, k) numbers of rows.
    """
    xp = namespace(queries)
    parts = range(0, queries.shape[0], QUERIES)
    kept: list[tuple[Any, Any] | None] = [None] * len(parts)  # of each part: the best products so far, and their rows
    for first, block in blocks:
        for i, start in enumerate(parts):
            products = queries[start:start + QUERIES, :] @ block.T
            found, columns = largest(products, min(k, products.shape[-1]))
            columns = columns + first
            if kept[i] is not None:
                values, indices = kept[i]
                found, columns = xp.concat([values, found], axis=-1), xp.concat([indices, columns], axis=-1)
                best = largest(found, min(k, found.shape[-1]))[1]
                found, columns = xp.take_along_axis(found, best, axis=-1), xp.take_along_axis(columns, best, axis=-1)
            kept[i] = found, columns
    return xp.concat([values for values, _ in kept]), xp.concat([indices for _, indices in kept])


def nearest(queries: Any, bank: Bank, k: int) -> Any:
    """Row in ``bank`` of each query's k-th neighbour. (N, D + 1) -> (N,)."""
    xp = namespace(queries)
    values, rows = strongest(queries, bank.blocks(), k)
    return xp.squeeze(xp.take_along_axis(rows, xp.argmin(values, axis=-1, keepdims=True), axis=-1), axis=-1)


def score(options: Options, known: Known, state: Bank, batch: Batch) -> Any:
    """Minus the distance to the K-th neighbour. features (N, D) -> (N,) float64, in -2..0."""
    xp = namespace(batch.features)
    distances = []
    together = QUERIES if state.ready else AT_ONCE
    for start in range(0, batch.features.shape[0], together):
        query = xp.astype(unit(batch.features[start:start + together, :]), state.dtype, copy=False)
        row = nearest(xp.concat([query, xp.ones_like(query[:, :1])], axis=-1), state, options.K)
        gap = float64(query) - float64(state.take(row))
        distances.append(xp.linalg.vector_norm(gap, axis=-1))
    return -xp.concat(distances) if distances else float64(batch.features[:, 0])
