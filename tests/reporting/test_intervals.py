"""Paired intervals of a paper: from score files to the CSV, and which score leads."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pandas as pd
import pytest

from tests import reporting_data
from workflow_scripts.core.errors import OODError
from workflow_scripts.metrics import ood, paired
from workflow_scripts.reporting import intervals
from workflow_scripts.reporting.inputs import Run
from workflow_scripts.stages import compare_scores

GROUPS = {"near": ["a"], "far": ["b", "c"]}


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    folder = tmp_path_factory.mktemp("paper")
    config = {key: value for key, value in reporting_data.write_paper(folder).items() if key in ("paper", "runs")}
    out = folder / "intervals.csv"
    compare_scores.main(["--config", json.dumps({**config, "draws": 200}), "--out", str(out)])
    return config, intervals.read(out)


def score_file(path, inside, **sets):
    with h5py.File(path, "w") as file:
        file["digits.test"] = inside
        for name, values in sets.items():
            file[f"{name}.test"] = values
    return str(path)


def runs(tmp_path, lead, seeds=(0,), sizes=(400, 300), scores=("good", "bad")):
    """Runs of one network, whose first score lies ``lead`` further from each set than the second."""
    found = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        files = {}
        images = {name: rng.normal(size=sizes[1]) for name in "abc"} | {"id": rng.normal(size=sizes[0])}
        for k, score in enumerate(scores):
            sets = {name: values + 0.3 * rng.normal(size=values.size) - 1 - lead * (1 - k)
                    for name, values in images.items() if name != "id"}
            inside = images["id"] + 0.3 * rng.normal(size=sizes[0])
            files[score] = score_file(tmp_path / f"{score}{seed}.h5", inside, **sets)
        found.append(Run.of(id="digits", network="net", recipe="ce", label="CE", seed=seed, scores=files, groups=GROUPS,
                            metrics=None))
    return found


def test_each_detector_has_its_interval_and_the_leader_one_from_each_other(paper):
    config, found = paper
    own, pairs = found[found["other_score"] == ""], found[found["other_score"] != ""]
    columns = 6 + 3  # sets; averages of near, far and all
    assert len(own) == columns * 2 * 6 * 2  # metrics, detectors, seeds
    assert len(pairs) == columns * 2 * 5 * (2 + 1)  # the others; over images for two seeds, over seeds once
    assert set(pairs.groupby("over")["n"].unique().map(tuple)) == {(1,), (2,)}
    there = own[own["low"].notna()]
    assert (there["low"] <= there["estimate"]).all() and (there["estimate"] <= there["high"]).all()
    assert (own.loc[own["low"].isna(), "estimate"] == 1).all()  # an AUROC of 1 has no interval


def test_estimates_are_the_values_of_the_metrics_files(paper):
    config, found = paper
    run = config["runs"][0]
    metrics = pd.read_csv(run["metrics"]).set_index(["score", "dataset", "metric"])["value"]
    own = found[(found["other_score"] == "") & (found["recipe"] == run["recipe"]) & (found["seed"] == str(run["seed"]))
                & (found["group"] != "average")]
    for row in own.itertuples():
        assert row.estimate == pytest.approx(metrics[row.score, row.dataset, row.metric], abs=1e-12)


def test_a_mean_over_sets_is_the_mean_of_their_metrics(tmp_path):
    made = runs(tmp_path, 0.5)
    found = intervals.compared(made, 100)
    with h5py.File(made[0].scores["good"]) as file:
        values = [ood.ood_metrics(file["digits.test"][:], file[f"{name}.test"][:]) for name in "bc"]
    rows = found[(found["dataset"] == "far") & (found["score"] == "good") & (found["other_score"] == "")]
    for row in rows.itertuples():
        assert row.estimate == pytest.approx(np.mean([value[row.metric] for value in values]))


def test_the_same_comparison_gives_the_same_interval_whatever_else_is_compared(tmp_path):
    alone = intervals.compared(runs(tmp_path, 0.5), 100)
    more = intervals.compared(runs(tmp_path, 0.5, scores=("good", "bad", "third")), 100)
    kept = more[~more[["score", "other_score"]].isin(["third"]).any(axis=1)].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, kept)


@pytest.mark.parametrize(("lead", "expected"), [(0.5, ("ce", "good")), (0.01, None)])
def test_a_leader_is_better_than_each_other_by_the_paired_test(tmp_path, lead, expected):
    found = intervals.leads(intervals.compared(runs(tmp_path, lead, (0, 1, 2), (2000, 1500)), 200), "images")
    assert len(found) == 6 * 2 and set(found.values()) == {expected}


def test_over_seeds_a_lead_needs_two_seeds(tmp_path):
    one = intervals.compared(runs(tmp_path, 0.5), 100)
    assert intervals.leads(one, "seeds") == {} and set(intervals.leads(one, "images").values()) == {("ce", "good")}
    five = intervals.compared(runs(tmp_path, 0.5, range(5)), 100)
    assert set(intervals.leads(five, "seeds").values()) == {("ce", "good")}


def test_scores_of_other_images_are_not_compared_and_nobody_leads_them(tmp_path):
    made = runs(tmp_path, 0.5)
    rng = np.random.default_rng(0)
    made[0].scores["bad"] = score_file(tmp_path / "other.h5", rng.normal(size=300),
                                       **{name: rng.normal(size=50) for name in "abc"})
    found = intervals.compared(made, 100)
    assert (found["other_score"] == "").all() and intervals.leads(found, "images") == {}


def test_a_file_that_is_not_there_is_left_out(tmp_path):
    made = runs(tmp_path, 0.5)
    made[0].scores["bad"] = None
    assert set(intervals.compared(made, 100)["score"]) == {"good"}
    assert list(intervals.compared([])) == intervals.HEADER


@pytest.mark.parametrize(("sets", "message"), [
    ({"a": [1.0], "b": [1.0, 2.0], "c": [1.0, 2.0]}, r"good.h5: OOD scores: an interval over images needs two"),
    ({"a": [1.0, np.nan]}, r"good.h5: expected finite scores for 'a'"),
])
def test_unusable_scores_are_one_line_that_names_the_file(tmp_path, sets, message):
    run = runs(tmp_path, 0.5)[0]
    run.scores["good"] = score_file(tmp_path / "good.h5", [1.0, 2.0], **sets)
    with pytest.raises(OODError, match=message) as error:
        intervals.compared([run])
    assert "\n" not in str(error.value)


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    with pytest.raises(OODError, match=r"a.csv: expected the columns id,network.*compare_scores"):
        intervals.read(tmp_path / "a.csv")


def test_p_and_interval_agree(paper):
    _, found = paper
    pairs = found[(found["other_score"] != "") & (found["metric"] == "auroc") & found["p"].notna()]
    clear = (pairs["low"] > 0) | (pairs["high"] < 0)
    assert (clear == (pairs["p"] <= paired.ALPHA)).all()
