"""AUGRC: ties, and the closed form of its paper."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.metrics.test_metrics import quick
from workflow_scripts.metrics import confidence, ood


@quick
@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=5))
def test_augrc_of_ties_is_the_mean_over_all_orders(images):
    scores, correct = np.array([score for score, _ in images]), np.array([right for _, right in images])
    areas = [np.trapezoid(np.concatenate(([0], np.cumsum(~correct[list(order)]))) / len(images), dx=1 / len(images))
             for order in itertools.permutations(range(len(images))) if (np.diff(scores[list(order)]) <= 0).all()]
    assert confidence.augrc(confidence.errors_curve(scores, correct)) == pytest.approx(np.mean(areas), abs=1e-12)


@quick
@given(st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=2, max_size=50).filter(
    lambda images: len({right for _, right in images}) == 2))
def test_augrc_is_its_papers_closed_form(images):
    curve = confidence.errors_curve([score for score, _ in images], [right for _, right in images])
    wrong = 1 - np.mean([right for _, right in images])
    expected = (1 - ood.auroc(curve)) * wrong * (1 - wrong) + wrong**2 / 2
    assert confidence.augrc(curve) == pytest.approx(expected, abs=1e-12)
