"""What learned weights of a background say about its images (background data resampling, CVPR 2020)."""

from __future__ import annotations

import numpy as np
from scipy import stats

from workflow_scripts.data.images import selection

SEEDS = 5


def rank_correlation(theta: np.ndarray, kl: np.ndarray) -> float:
    """Spearman's rank correlation of weights and divergences, (N,) each. NaN where one of them is constant."""
    if np.ptp(theta) == 0 or np.ptp(kl) == 0:
        return float("nan")
    return float(stats.spearmanr(theta, kl).statistic)


def interval(values: np.ndarray) -> tuple[float, float]:
    """Mean and half the 95 % confidence interval of the mean (Student's t)."""
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(half)


def kept_difference(theta: np.ndarray, kl: np.ndarray, ratio: float) -> tuple[float, float]:
    """Mean divergence of the images that a selection keeps, learned minus random, over :data:`SEEDS` draws of both.

    Args:
        theta: (N,) parameters of the weights.
        kl: (N,) divergence under the network before it was trained against the background, in nats.
        ratio: share that is kept.

    Returns:
        Mean difference in nats and half its 95 % interval.
    """
    found = []
    for seed in range(SEEDS):
        rng = np.random.default_rng((seed, 0x6B6C))
        kept = selection.learned(theta, ratio, False, rng)
        drawn = selection.random(len(theta), ratio, False, rng)
        found.append(kl[kept].mean() - kl[drawn].mean() if len(kept) else np.nan)
    return interval(np.array(found))


def tenths_difference(theta: np.ndarray, values: np.ndarray) -> tuple[float, float, float]:
    """Mean of ``values`` over the tenth of the images with the largest weights, over that with the smallest.

    Returns:
        (mean of the top tenth, mean of the bottom tenth, half the 95 % interval of their difference; Welch's t).
    """
    order = np.argsort(theta, kind="stable")
    tenth = max(2, len(order) // 10)
    low, high = values[order[:tenth]], values[order[-tenth:]]
    ci = stats.ttest_ind(high, low, equal_var=False).confidence_interval(0.95)
    return float(high.mean()), float(low.mean()), float(ci.high - ci.low) / 2
