"""Paired intervals: against brute force over all pairs and plain resamples, and their coverage in simulations."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from workflow_scripts.core.errors import OODError
from workflow_scripts.metrics import ood, paired

quick = settings(max_examples=60, deadline=None, derandomize=True, database=None)
tied = st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=2, max_size=25)
SHIFTS = (2.0, 1.6)


def two_scores(rng, n, m):
    """ID scores (2, n) and OOD scores (2, m), normal, that correlate by one half within an image."""
    inside, outside = (rng.normal(size=size) + rng.normal(size=(2, size)) for size in (n, m))
    return inside / 2**0.5, outside / 2**0.5 - np.array(SHIFTS)[:, None]


def pairs(inside, outside):
    """1 where an ID image is above an OOD image, 0.5 where equal. -> (N, M)."""
    inside, outside = np.array(inside)[:, None], np.array(outside)[None]
    return (inside > outside) + 0.5 * (inside == outside)


# ---------------------------------------------------------------- AUROC

@quick
@given(tied, tied, tied)
def test_delong_equals_its_definition_over_all_pairs(inside, one, other):
    inside, sets = np.array(inside), [np.array(one), np.array(other)]
    a, b = (paired.components(inside[:, k], [part[:, k] for part in sets]) for k in (0, 1))
    tables = [pairs(inside[:, 0], part[:, 0]) - pairs(inside[:, 1], part[:, 1]) for part in sets]
    images = np.mean([table.mean(axis=1) for table in tables], axis=0)
    variance = images.var(ddof=1) / images.size + sum(t.mean(axis=0).var(ddof=1) / t.shape[1] for t in tables) / 4
    found = paired.auroc_difference(a, b)
    assert a.auroc == pytest.approx(np.mean([ood.auroc(ood.curve(inside[:, 0], part[:, 0])) for part in sets]))
    assert found.estimate == pytest.approx(np.mean([table.mean() for table in tables]), abs=1e-12)
    if variance > 1e-15:
        z = found.estimate / math.sqrt(variance)
        assert (found.high - found.low) / 2 == pytest.approx(1.959964 * math.sqrt(variance), rel=1e-6)
        assert found.p == pytest.approx(2 * stats.norm.sf(abs(z)), abs=1e-9)


def test_the_interval_of_one_auroc_stays_between_0_and_1():
    scores = np.arange(20.0)
    found = paired.auroc_interval(paired.components(scores + 17.5, [scores]))
    assert 0 < found.low < found.estimate < found.high < 1


def test_where_no_pair_is_in_the_wrong_order_there_is_no_interval():
    separated = paired.components([2.0, 3.0], [[0.0, 1.0]])
    found = paired.auroc_interval(separated)
    assert found.estimate == 1 and math.isnan(found.low) and not found.clear
    against_reverse = paired.auroc_difference(separated, paired.components([0.0, 1.0], [[2.0, 3.0]]))
    assert against_reverse.estimate == 1 and not against_reverse.clear


def test_a_score_does_not_differ_from_itself():
    inside, outside = two_scores(np.random.default_rng(0), 50, 40)
    score = paired.components(inside[0], [outside[0]])
    found = paired.auroc_difference(score, score)
    assert (found.estimate, found.low, found.high, found.p) == (0, 0, 0, 1)


# ---------------------------------------------------------------- FPR95

def resampled(inside, outside, draws, rng):
    """FPR95 of both scores in resamples that are made image by image. -> (draws, 2)."""
    found = np.empty((draws, 2))
    for draw in range(draws):
        i = rng.integers(inside.shape[1], size=inside.shape[1])
        o = rng.integers(outside.shape[1], size=outside.shape[1])
        found[draw] = [ood.fpr95(ood.curve(inside[k, i], outside[k, o])) for k in (0, 1)]
    return found


@pytest.mark.parametrize(("n", "m", "digits"), [(60, 45, 9), (37, 80, 0), (400, 90, 9)])
def test_the_bootstrap_has_the_distribution_of_plain_resamples(n, m, digits):
    inside, outside = (part.round(digits) for part in two_scores(np.random.default_rng(n), n, m))
    plain = resampled(inside, outside, 4000, np.random.default_rng(1))
    found = paired.fpr95_difference(*((inside[k], [outside[k]]) for k in (0, 1)), np.random.default_rng(2), 4000)
    apart, step = plain[:, 0] - plain[:, 1], 1.1 / m  # one OOD image
    assert [found.low, found.high] == pytest.approx(np.quantile(apart, [0.025, 0.975]), abs=step)
    alone = paired.fpr95_interval(inside[0], [outside[0]], np.random.default_rng(3), 4000)
    assert [alone.low, alone.high] == pytest.approx(np.quantile(plain[:, 0], [0.025, 0.975]), abs=step)
    assert alone.estimate == ood.fpr95(ood.curve(inside[0], outside[0]))
    assert found.estimate == pytest.approx(alone.estimate - ood.fpr95(ood.curve(inside[1], outside[1])))


def test_all_replicates_follow_the_plain_ones_not_only_their_tails():
    inside, outside = two_scores(np.random.default_rng(5), 3000, 80)  # most ID images are not drawn one by one
    rng = np.random.default_rng(6)
    rejected = 3000 - ood.needed(3000)
    at = paired._thresholds(inside, rejected, rng, 3000)
    plain = np.empty((3000, 2))
    for draw in range(3000):
        chosen = inside[:, rng.integers(3000, size=3000)]
        plain[draw] = np.partition(chosen, rejected, axis=1)[:, rejected]
    for k in (0, 1):
        assert stats.ks_2samp(at[:, k], plain[:, k]).pvalue > 0.001
    assert np.corrcoef(at.T)[0, 1] == pytest.approx(np.corrcoef(plain.T)[0, 1], abs=0.05)


def test_several_sets_share_the_resample_of_the_id_images():
    inside, outside = two_scores(np.random.default_rng(7), 200, 300)
    once = paired.fpr95_difference(*((inside[k], [outside[k]]) for k in (0, 1)), np.random.default_rng(8))
    twice = paired.fpr95_difference(*((inside[k], [outside[k]] * 2) for k in (0, 1)), np.random.default_rng(8))
    assert twice.estimate == pytest.approx(once.estimate)
    wide, wider = twice.high - twice.low, once.high - once.low
    assert wider / 2**0.5 < wide < wider  # the OOD images of two sets vary apart


# ---------------------------------------------------------------- over seeds

def test_over_seeds_is_the_paired_t_test():
    first, second = [0.91, 0.93, 0.92, 0.95], [0.90, 0.91, 0.92, 0.92]
    found = paired.over_seeds(np.subtract(first, second))
    expected = stats.ttest_rel(first, second)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))


# ---------------------------------------------------------------- bad input

A, B = [1.0, 2.0, 3.0], [0.0, 1.0]
RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: paired.components([1.0], [B]), "ID scores: an interval over images needs two images or more, found 1"),
    (lambda: paired.components(A, [[1.0]]), "OOD scores: an interval over images needs two"),
    (lambda: paired.components(A, []), "OOD scores: expected at least one set"),
    (lambda: paired.components([1.0, math.nan], [B]), "ID scores: expected finite values"),
    (lambda: paired.auroc_difference(paired.components(A, [B]), paired.components(A, [A])),
     r"two scores of the same images, found \[3, 2\] and \[3, 3\] images"),
    (lambda: paired.fpr95_difference((A, [B]), (A, [B, B]), RNG), r"found \[3, 2\] and \[3, 2, 2\] images"),
    (lambda: paired.over_seeds([0.1]), "expected two seeds or more, found 1"),
])
def test_unusable_input_is_one_line(call, message):
    with pytest.raises(OODError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------- reach

@pytest.mark.slow
def test_a_paired_interval_of_a_million_scores_takes_less_than_two_seconds():
    inside, outside = two_scores(np.random.default_rng(0), 500_000, 500_000)
    start = time.process_time()
    paired.auroc_difference(*(paired.components(inside[k], [outside[k]]) for k in (0, 1)))
    paired.fpr95_difference(*((inside[k], [outside[k]]) for k in (0, 1)), np.random.default_rng(1))
    assert time.process_time() - start < 2


@pytest.mark.slow
@pytest.mark.parametrize(("n", "m"), [(300, 300), (1000, 500)])
def test_95_percent_intervals_cover_in_93_to_97_percent_of_simulations(n, m):
    rng, repeats = np.random.default_rng(0), 1000
    auroc = [stats.norm.cdf(shift / 2**0.5) for shift in SHIFTS]
    fpr = [stats.norm.sf(stats.norm.ppf(0.05) + shift) for shift in SHIFTS]
    truth = np.array([auroc[0], auroc[0] - auroc[1], fpr[0], fpr[0] - fpr[1]])
    covered = np.zeros(4)
    for _ in range(repeats):
        inside, outside = two_scores(rng, n, m)
        sides = [(inside[k], [outside[k]]) for k in (0, 1)]
        scores = [paired.components(*side) for side in sides]
        found = [paired.auroc_interval(scores[0]), paired.auroc_difference(*scores),
                 paired.fpr95_interval(*sides[0], rng, 400), paired.fpr95_difference(*sides, rng, 400)]
        covered += [one.low <= value <= one.high for one, value in zip(found, truth, strict=True)]
    assert (covered / repeats >= 0.93).all() and (covered / repeats <= 0.97).all(), covered / repeats
