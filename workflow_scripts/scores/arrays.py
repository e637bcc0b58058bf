"""The few array operations that the array API standard lacks, for numpy arrays and torch tensors alike."""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_torch_array


def namespace(*arrays: Any) -> Any:
    """The array namespace (numpy- or torch-like) of ``arrays``."""
    return array_namespace(*arrays)


def float64(x: Any) -> Any:
    """``x`` as float64, without a copy where it is already."""
    xp = array_namespace(x)
    return xp.astype(x, xp.float64, copy=False)


def logsumexp(x: Any) -> Any:
    """log(sum(exp(x))) over the last axis, shifted by the maximum. (..., K) -> (...)."""
    xp = array_namespace(x)
    top = xp.max(x, axis=-1, keepdims=True)
    return xp.squeeze(top, axis=-1) + xp.log(xp.sum(xp.exp(x - top), axis=-1))


def kth_smallest(x: Any, k: int) -> Any:
    """The k-th smallest value (1-based) along the last axis. (N, M) -> (N,)."""
    if is_torch_array(x):
        return x.kthvalue(k, dim=-1).values
    return np.partition(x, k - 1, axis=-1)[..., k - 1]


def percentile(x: Any, p: float, axis: int | None = None) -> Any:
    """The p-th percentile (0..100), linear interpolation between order statistics, as numpy defines it."""
    if is_torch_array(x):
        return x.quantile(p / 100) if axis is None else x.quantile(p / 100, dim=axis)
    return np.percentile(x, p, axis=axis)
