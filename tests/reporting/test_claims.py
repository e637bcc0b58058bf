"""What a run shows of a paper's claim: the two rows, and whether they differ by more than seeds do."""

from __future__ import annotations

import pandas as pd
import pytest
import yaml

from tests.checkout import ROOT
from workflow_scripts.config.load import given
from workflow_scripts.core.claims import Claim
from workflow_scripts.core.errors import OODError
from workflow_scripts.reporting.claims import BETTER, UNKNOWN, WITHIN, WORSE, shown
from workflow_scripts.reporting.statistics import Seeds
from workflow_scripts.work.expand import read_plan

CLAIM = Claim.of(says="Ours is better.", ours={"recipe": "new", "score": "knn"},
                 baseline={"recipe": "old", "score": "knn"})


def results(old, new, **more):
    """Averages of near and far sets by two trainings; each number over the seeds 0, 1, ..."""
    rows = []
    for recipe, values in (("old", old), ("new", new)):
        for (group, name), numbers in values.items():
            rows.append({"id": "x", "network": "n", "recipe": recipe, "label": recipe.title(), "score": "knn",
                         "dataset": group, "group": "average", "metric": name,
                         "seeds": Seeds(tuple(enumerate(numbers))), **more})
    return pd.DataFrame(rows)


NEAR, FAR, FPR = ("near", "auroc"), ("far", "auroc"), ("far", "fpr95")


def test_each_number_has_its_verdict():
    found = shown(results({NEAR: [0.90, 0.92], FAR: [0.95, 0.95], FPR: [0.30, 0.31]},
                          {NEAR: [0.91, 0.93], FAR: [0.99, 0.98], FPR: [0.40, 0.41]}), CLAIM, {})
    assert [line.verdict for line in found.lines] == [WITHIN, BETTER, WORSE]  # FPR95: lower is better
    assert (found.ours, found.baseline, found.n) == ("New", "Old", 2)
    assert found.sentence == (
        "New against Old, 2 seeds: near-OOD AUROC ↑ 91.0 ± 1.4 → 92.0 ± 1.4 (within seed noise); "
        "far-OOD AUROC ↑ 95.0 ± 0.0 → 98.5 ± 0.7 (better); far-OOD FPR95 (ID+) ↓ 30.5 ± 0.7 → 40.5 ± 0.7 (worse).")


def test_one_seed_says_nothing_of_noise():
    found = shown(results({FAR: [0.95]}, {FAR: [0.99]}), CLAIM, {})
    assert [line.verdict for line in found.lines] == [UNKNOWN] and found.n == 1


def test_scores_of_one_training_are_called_by_their_names():
    both = results({FAR: [0.9, 0.9]}, {FAR: [0.9, 0.9]})
    both = pd.concat([both, both.assign(score="energy")])
    claim = Claim.of(says="x", ours={"recipe": "new", "score": "energy"}, baseline={"recipe": "new", "score": "knn"})
    found = shown(both, claim, {"energy": "Energy", "knn": "KNN"})
    assert (found.ours, found.baseline) == ("Energy", "KNN")


@pytest.mark.parametrize("rows", [results({}, {FAR: [0.9]}), results({FAR: [None]}, {FAR: [0.9]}), pd.DataFrame()])
def test_without_both_rows_there_is_no_card(rows):
    assert shown(rows, CLAIM, {}) is None
    assert shown(results({FAR: [0.9]}, {FAR: [0.9]}), None, {}) is None


@pytest.mark.parametrize(("change", "message"), [
    ({"ours": {"recipe": "dnese", "score": "energy"}}, "claim.ours.recipe: 'dnese' .*'dense'"),
    ({"baseline": {"recipe": "dense", "score": "enrgy"}}, "claim.baseline.score: 'enrgy' .*'energy'"),
    ({"claims": "x"}, "unknown key 'claims'")])
def test_a_row_that_no_experiment_has_is_refused(tmp_path, change, message):
    config = given([ROOT / "config.yaml"], [], ROOT)
    paper = next(paper for paper in config["papers"] if paper["name"] == "dfb")
    paper["claim"] = {**paper["claim"], **change}
    with pytest.raises(OODError, match=message):
        read_plan(yaml.safe_load(yaml.safe_dump(config)), ROOT)
