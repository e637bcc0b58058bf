"""Whether some of several scores rank better than others over test sets: Friedman's test and Nemenyi's.

Source: Demsar, Statistical Comparisons of Classifiers over Multiple Data Sets (JMLR 2006), sections 3.2.2 and 3.2.3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from workflow_scripts.core.errors import OODError

ALPHA = 0.05


@dataclass(frozen=True)
class Ranks:
    """Mean ranks of K scores over B sets."""

    mean: NDArray[np.float64]
    """(K,); 1 is best, equal values share their ranks."""
    p: float
    """Of Friedman's test that all rank alike; 1 where all values are equal."""
    critical: float
    """Two mean ranks that are further apart differ (Nemenyi's test at 5 %)."""

    def groups(self) -> list[tuple[int, ...]]:
        """Positions of scores that cannot be told apart, best first: each largest run of mean ranks within the critical
        difference, of two or more; all of them where Friedman's test does not reject."""
        order = [int(k) for k in np.argsort(self.mean, kind="stable")]
        if self.p > ALPHA:
            return [tuple(order)]
        ranked = self.mean[order]
        found: list[tuple[int, ...]] = []
        last = 0
        for start in range(len(order)):
            end = int(np.searchsorted(ranked, ranked[start] + self.critical, "right"))
            if end > last and end - start > 1:
                found.append(tuple(order[start:end]))
            last = max(last, end)
        return found


def rank_test(values: NDArray[np.float64], higher: bool) -> Ranks:
    """Rank scores within each set and test the mean ranks.

    Args:
        values: (B, K) of B >= 2 sets and K >= 3 scores.
        higher: whether higher is better.

    Raises:
        OODError: fewer sets or scores, or a value that is not finite.
    """
    if values.ndim != 2 or values.shape[0] < 2 or values.shape[1] < 3:
        raise OODError("rank test: expected at least two OOD sets and three scores that all of them have, found "
                       f"{' and '.join(map(str, values.shape))}; name more sets or scores")
    if not np.isfinite(values).all():
        raise OODError(f"rank test: expected finite values, found {int((~np.isfinite(values)).sum())} that are not; "
                       "leave out the scores that lack a set")
    sets, scores = values.shape
    ranks = stats.rankdata(-values if higher else values, axis=1)
    p = 1.0 if (ranks == ranks[:, :1]).all() else float(stats.friedmanchisquare(*values.T).pvalue)
    quantile = float(stats.studentized_range.ppf(1 - ALPHA, scores, math.inf)) / math.sqrt(2)
    return Ranks(ranks.mean(axis=0), p, quantile * math.sqrt(scores * (scores + 1) / (6 * sets)))
