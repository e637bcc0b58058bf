"""Tables with many scores: families, the best of each first, a fold; few scores stay as they are."""

from __future__ import annotations

from typing import get_args

import pandas as pd
import pytest

from workflow_scripts.config import scores_page
from workflow_scripts.core import plugins
from workflow_scripts.core.errors import OODError
from workflow_scripts.core.specs import Family, ScoreSpec
from workflow_scripts.reporting import printing
from workflow_scripts.reporting.families import FEW, arranged
from workflow_scripts.reporting.layout import tables
from workflow_scripts.reporting.statistics import Seeds

SCORES = {**{f"d{number}": "distance" for number in range(8)}, **{f"l{number}": "logits" for number in range(6)}}


def heads(recipes=("a", "b"), scores=tuple(SCORES)):
    return pd.DataFrame([(recipe, score) for recipe in recipes for score in scores], columns=["recipe", "score"])


def numbers(rows):
    """AUROC rises with the number in the name; d3 has none."""
    return {(recipe, score): None if score == "d3" else Seeds(((0, int(score[1:]) / 10),))
            for recipe, score in rows.itertuples(index=False, name=None)}


def test_the_best_of_each_family_comes_first_and_the_others_fold():
    rows = heads()
    found = arranged(rows, SCORES, "auroc", numbers(rows))
    logits, distance = [f"l{n}" for n in range(5, -1, -1)], [f"d{n}" for n in (7, 6, 5, 4, 2, 1, 0, 3)]
    assert list(found["score"]) == (logits + distance) * 2 and list(found["recipe"]) == ["a"] * 14 + ["b"] * 14
    assert list(found.loc[~found["folded"], "score"]) == ["l5", "d7"] * 2


def test_the_paper_s_own_score_is_not_folded():
    rows = heads()
    found = arranged(rows, SCORES, "auroc", numbers(rows), headline="l2")
    assert list(found.loc[~found["folded"], "score"]) == ["l5", "l2", "d7"] * 2


def test_the_least_comes_first_where_lower_is_better():
    rows = heads()
    assert list(arranged(rows, SCORES, "fpr95", numbers(rows))["score"])[:2] == ["l0", "l1"]


def test_a_score_of_another_tool_is_in_the_last_family():
    rows = heads()
    assert list(arranged(rows, {"l0": "logits"}, "auroc", numbers(rows))["family"])[:3] == ["logits", "other", "other"]


def test_few_scores_stay_in_the_order_of_the_configuration():
    rows = heads(scores=[*SCORES][:FEW])
    found = arranged(rows, SCORES, "auroc", numbers(rows))
    pd.testing.assert_frame_equal(found[["recipe", "score"]], rows)
    assert not found["folded"].any() and not found["family"].any()


def test_a_table_has_families_and_says_which_rows_fold():
    results = pd.DataFrame([{
        "id": "x", "network": "n", "recipe": "r", "label": "R", "score": score, "dataset": "y", "group": "far",
        "metric": name, "n_id": 5, "n_ood": 5, "seeds": Seeds(((0, int(score[1:]) / 10),))}
        for score in SCORES for name in ("auroc", "fpr95")])
    (found,) = tables(results, ["auroc", "fpr95"], [], families=SCORES)
    assert found.folded.count(False) == 2 and not found.folded[0]
    lines = [line for line in printing.markdown(found).splitlines() if line.startswith("| R |")]
    assert lines[0].startswith("| R | logits | l5 |") and len(lines) == len(SCORES)


def test_every_score_has_a_family_and_the_page_lists_each_once():
    listed = [name for members in scores_page.in_families().values() for name in members]
    assert sorted(listed) == sorted(plugins.names("scores"))
    assert "other" not in scores_page.in_families()  # which is for a user's file that says nothing


def test_a_family_that_is_none_is_refused():
    with pytest.raises(OODError, match="ScoreSpec.family: .*'distances'"):
        ScoreSpec(needs={"logits"}, family="distances")
    assert len(set(get_args(Family))) == len(get_args(Family))
