"""The rank test: tables of the paper, ties, groups, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from workflow_scripts.core.errors import OODError
from workflow_scripts.metrics.ranks import Ranks, rank_test


@pytest.mark.parametrize(("scores", "quantile"), [(3, 2.343), (5, 2.728), (10, 3.164)])
def test_the_critical_difference_has_the_quantiles_of_demsars_table(scores, quantile):
    """Table 5 (a) of the paper, q at 0.05."""
    found = rank_test(np.random.default_rng(0).random((14, scores)), True)
    assert found.critical == pytest.approx(quantile * np.sqrt(scores * (scores + 1) / (6 * 14)), rel=5e-4)


def test_ranks_and_p_are_friedmans():
    values = np.random.default_rng(1).random((9, 4)) + [0, 0.3, 0.1, 0.6]
    found = rank_test(values, True)
    assert found.mean.argmin() == 3 and found.mean.sum() == pytest.approx(1 + 2 + 3 + 4)
    assert found.p == pytest.approx(stats.friedmanchisquare(*values.T).pvalue)
    turned = rank_test(-values, False)
    assert (turned.mean == found.mean).all() and turned.p == pytest.approx(found.p)


def test_equal_values_share_their_ranks():
    assert rank_test(np.array([[0.9, 0.9, 0.8], [0.9, 0.8, 0.7]]), True).mean.tolist() == [1.25, 1.75, 3]
    same = rank_test(np.full((4, 3), 0.5), True)
    assert same.mean.tolist() == [2, 2, 2] and same.p == 1 and same.groups() == [(0, 1, 2)]


@pytest.mark.parametrize(("mean", "p", "groups"), [
    ([1.0, 2.5, 1.5, 4.0], 0.001, [(0, 2), (2, 1)]),  # 1.5 and 2.5 are just the critical difference apart
    ([1.0, 2.5, 1.5, 4.0], 0.2, [(0, 2, 1, 3)]),
    ([1.0, 2.2, 3.4], 0.001, []),
    ([1.0, 1.1, 1.2, 3.0, 3.1], 0.001, [(0, 1, 2), (3, 4)]),
])
def test_groups_are_the_largest_runs_within_the_critical_difference(mean, p, groups):
    assert Ranks(np.array(mean), p, 1.0).groups() == groups


@pytest.mark.parametrize(("values", "message"), [
    (np.ones((1, 5)), "expected at least two OOD sets and three scores that all of them have, found 1 and 5"),
    (np.ones((4, 2)), "found 4 and 2"),
    (np.array([[1, 2, 3], [1, np.nan, 3]]), "expected finite values, found 1 that are not"),
])
def test_too_little_is_refused_in_one_line(values, message):
    with pytest.raises(OODError, match=message) as error:
        rank_test(values, True)
    assert "\n" not in str(error.value)
