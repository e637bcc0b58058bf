"""The few array operations that the array API standard lacks, for numpy arrays and torch tensors alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device, is_numpy_array, is_torch_array

from workflow_scripts.scores.base import Head

BLOCK_ROWS = 8192  # rows of a bank that are held in float64 at once


def namespace(*arrays: Any) -> Any:
    """The array namespace (numpy- or torch-like) of ``arrays``."""
    return array_namespace(*arrays)


def float64(x: Any) -> Any:
    """``x`` as float64, without a copy where it is already."""
    xp = array_namespace(x)
    return xp.astype(x, xp.float64, copy=False)


def blocks(x: Any, rows: int | None = None) -> Iterator[tuple[slice, Any]]:
    """(rows, ``x[rows]`` as float64), so that a bank is never held twice. (M, D) -> (rows, D) each."""
    rows = rows or BLOCK_ROWS
    for start in range(0, x.shape[0], rows):
        part = slice(start, min(start + rows, x.shape[0]))
        yield part, float64(x[part, ...])


def moments(x: Any) -> tuple[Any, Any]:
    """Mean (D,) and covariance (D, D) of the rows, which count by 1 / M, float64. (M, D)."""
    xp = namespace(x)
    total = products = 0.0
    for _, h in blocks(x):
        total = total + xp.sum(h, axis=0)
        products = products + h.T @ h
    mean = total / x.shape[0]
    return mean, products / x.shape[0] - mean[:, None] * mean


def deviations(mean: Any, covariance: Any) -> Any:
    """Standard deviation of each unit, of :func:`moments`; 1 where it is rounding alone. -> (D,)."""
    xp = namespace(covariance)
    variance = xp.linalg.diagonal(covariance)
    alive = variance > xp.finfo(xp.float64).eps * mean.shape[0] * (variance + mean * mean)
    return xp.where(alive, xp.sqrt(xp.where(alive, variance, 1.0)), 1.0)


def spaced(x: Any, count: int) -> Any:
    """At most ``count`` rows of a bank, evenly spaced, in memory. (M, D) -> (m, D), or (M,) -> (m,)."""
    step = -(-x.shape[0] // count)
    if step <= 1 and in_memory(x):
        return x
    rows = max(BLOCK_ROWS // step, 1) * step
    xp = array_namespace(x)
    starts = range(0, x.shape[0], rows)
    return xp.concat([xp.asarray(x[start:start + rows, ...][::step, ...], copy=True) for start in starts])


def unit(x: Any) -> Any:
    """Rows of length 1; a zero row stays zero. (N, D) -> (N, D) of the same dtype."""
    xp = array_namespace(x)
    return x / xp.clip(xp.linalg.vector_norm(x, axis=-1, keepdims=True), min=1e-12)


def affine(features: Any, head: Head) -> Any:
    """Logits of the head, W h + b. (N, D) -> (N, K) float64."""
    return float64(features) @ float64(head.weight).T + float64(head.bias)


def positions(x: Any) -> Any:
    """0, 1, ... along the last axis of ``x``, on its device. (..., K) -> (K,)."""
    return array_namespace(x).arange(x.shape[-1], device=device(x))


def classified(z: Any, labels: Any) -> Any:
    """Which images are classified correctly, in the column of their class. z (N, K), labels (N,) -> (N, K) bool."""
    xp = array_namespace(z)
    label = xp.astype(labels, xp.int64, copy=False)[:, None]
    return (positions(z) == label) & (xp.argmax(z, axis=-1, keepdims=True) == label)


def logsumexp(x: Any) -> Any:
    """log(sum(exp(x))) over the last axis, shifted by the maximum. (..., K) -> (...)."""
    xp = array_namespace(x)
    top = xp.max(x, axis=-1, keepdims=True)
    return xp.squeeze(top, axis=-1) + xp.log(xp.sum(xp.exp(x - top), axis=-1))


def max_log_softmax(x: Any) -> Any:
    """Largest log-softmax of each row. (N, K) -> (N,), at most 0.

    It is -log(1 + sum of exp(x_k - max) over the *other* classes), so that confident rows stay apart down to
    probabilities of 1 - 1e-300, where the softmax itself is 1.0 for all of them.
    """
    xp = array_namespace(x)
    top = xp.max(x, axis=-1, keepdims=True)
    winner = positions(x) == xp.argmax(x, axis=-1, keepdims=True)
    return -xp.log1p(xp.sum(xp.where(winner, 0.0, xp.exp(x - top)), axis=-1))


def in_memory(x: Any) -> bool:
    """False for rows that stay in their file (:class:`workflow_scripts.scores.cached.Rows`)."""
    return is_numpy_array(x) or is_torch_array(x)


def stored_order_statistics(x: Any, ranks: list[int]) -> list[float]:
    """The values of the given 0-based ranks among all of ``x`` (M, D) float32, read block by block, twice.

    The bits of a float32, with those of negative numbers inverted, rise as the numbers do: the first pass counts their
    upper halves, the second the lower halves of the numbers whose upper half is that of a rank.
    """
    def keys() -> Iterator[np.ndarray]:
        for start in range(0, x.shape[0], BLOCK_ROWS):
            bits = np.ascontiguousarray(x[start:start + BLOCK_ROWS, :], np.float32).reshape(-1).view(np.uint32)
            yield np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))

    upper = np.zeros(1 << 16, np.int64)
    for key in keys():
        upper += np.bincount(key >> 16, minlength=len(upper))
    below = np.cumsum(upper)
    halves = [int(np.searchsorted(below, rank, side="right")) for rank in ranks]
    lower = {half: np.zeros(1 << 16, np.int64) for half in halves}
    for key in keys():
        for half, counts in lower.items():
            counts += np.bincount(key[key >> 16 == half] & 0xFFFF, minlength=len(counts))
    found = []
    for rank, half in zip(ranks, halves, strict=True):
        rest = int(np.searchsorted(np.cumsum(lower[half]), rank - (below[half] - upper[half]), side="right"))
        key = np.array(half << 16 | rest, np.uint32)
        found.append(float(np.where(key >> 31, key & np.uint32(0x7FFFFFFF), ~key).astype(np.uint32).view(np.float32)))
    return found


def order_statistics(x: Any, ranks: list[int]) -> list[Any]:
    """The values of the given 0-based ranks along the last axis, smallest first. (..., M) -> [(...), ...]."""
    if is_torch_array(x):
        return [x.kthvalue(rank + 1, dim=-1).values for rank in ranks]
    ordered = np.partition(x, ranks, axis=-1)
    return [ordered[..., rank] for rank in ranks]


def percentile(x: Any, p: float) -> Any:
    """The p-th percentile (0..100) along the last axis as float64, interpolated linearly between order statistics.

    Same definition as ``numpy.percentile``; the place is computed in double also for a float32 array of any length.
    (..., M) -> (...).
    """
    low, high, share = _place(x.shape[-1], p)
    return _between(*map(float64, order_statistics(x, [low, high])), share)


def percentile_of_all(x: Any, p: float) -> float:
    """:func:`percentile` of all numbers of ``x`` (M, D), which may lie in its file."""
    if in_memory(x):
        return float(percentile(array_namespace(x).reshape(x, (-1,)), p))
    low, high, share = _place(x.shape[0] * x.shape[1], p)
    return _between(*stored_order_statistics(x, [low, high]), share)


def _place(count: int, p: float) -> tuple[int, int, float]:
    """Ranks of the two order statistics about the p-th percentile of ``count`` numbers, and the way between them."""
    place = p / 100 * (count - 1)
    low = min(int(place), count - 1)
    return low, min(low + 1, count - 1), place - low


def _between(below: Any, above: Any, share: float) -> Any:
    return below + (above - below) * share if share < 0.5 else above - (above - below) * (1 - share)


def keep_largest(x: Any, k: int) -> Any:
    """Mask of exactly ``k`` largest values per row; among equal values the first ones stay. (N, D) -> (N, D) bool."""
    xp = array_namespace(x)
    edge = xp.expand_dims(order_statistics(x, [x.shape[-1] - k])[0], axis=-1)
    above, level = x > edge, x == edge
    room = k - xp.sum(above, axis=-1, keepdims=True, dtype=xp.int64)
    return above | (level & (xp.cumulative_sum(xp.astype(level, xp.int64), axis=-1) <= room))


def largest(x: Any, k: int) -> tuple[Any, Any]:
    """The ``k`` largest values of each row and their columns, in no order. (N, M) -> (N, k), (N, k).

    On numpy a bound is taken first: the k-th largest of the maxima of 10 k groups is at most the k-th largest value,
    and few values reach it; only those are ranked (2-4 times faster than ``argpartition`` of a row of 50,000).
    """
    if is_torch_array(x):
        return tuple(x.topk(k, dim=-1, sorted=False))
    rows, columns = x.shape
    size = columns // (10 * k)
    if size >= 4:
        maxima = x[:, :10 * k * size].reshape(rows, size, 10 * k).max(axis=1)
        bound = np.partition(maxima, 9 * k, axis=-1)[:, 9 * k]
        row, column = np.nonzero(x >= bound[:, None])
        count = np.bincount(row, minlength=rows)
        if count.max() <= columns // 4:  # else: masses of ties
            place = np.arange(row.size) - np.repeat(np.cumsum(count) - count, count)
            values = np.full((rows, count.max()), -np.inf, x.dtype)
            indices = np.zeros(values.shape, np.int64)
            values[row, place], indices[row, place] = x[row, column], column
            best = np.argpartition(values, values.shape[1] - k, axis=-1)[:, values.shape[1] - k:]
            return np.take_along_axis(values, best, -1), np.take_along_axis(indices, best, -1)
    best = np.argpartition(x, columns - k, axis=-1)[:, columns - k:]
    return np.take_along_axis(x, best, -1), best
