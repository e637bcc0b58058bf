"""Which scores an experiment's tuning adds, and what it refuses before the first job."""

from __future__ import annotations

import pytest
import yaml

from tests.checkout import ROOT
from tests.tuning_data import write
from workflow_scripts.config.load import given
from workflow_scripts.core.errors import OODError
from workflow_scripts.wiring import evaluation
from workflow_scripts.work.expand import read_plan

SCORES = ["msp", "energy", "knn", "odin"]


def plan(folder, change=lambda config: None):
    """The plan of the configuration with a change."""
    path = write(folder, SCORES)
    config = yaml.safe_load(path.read_text())
    change(config)
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return read_plan(given([path], [], ROOT), ROOT)


def tuning(**changes):
    return lambda config: config["experiments"][0]["tuning"].update(changes)


def test_scores_with_a_space_are_added(tmp_path):
    (run,) = plan(tmp_path).runs.values()
    assert list(run.scores) == [*SCORES, *(f"{name}_{way}" for name in ("energy", "knn", "odin")
                                           for way in ("id_only", "validation"))]
    assert run.tuned["knn_validation"] == ("knn", "validation")
    assert run.scores["knn_id_only"].module == "knn"


def test_without_validation_sets_one_way_is_left(tmp_path):
    made = plan(tmp_path, tuning(id=None, ood=[]))
    (run,) = made.runs.values()
    assert list(run.tuned) == ["energy_id_only", "knn_id_only", "odin_id_only"]
    assert made.validation_sets("five") == []


def test_a_score_that_a_sweep_chooses_is_left_to_it(tmp_path):
    def change(config):
        config["scores"][2]["tune"] = {}

    (run,) = plan(tmp_path, change).runs.values()
    assert "knn_id_only" not in run.tuned


def test_validation_sets_are_prepared_and_compared(tmp_path):
    made = plan(tmp_path)
    assert made.validation_sets("five") == [("five_val", "test"), ("ood_val", "test")]
    assert {("five_val", "test"), ("ood_val", "test")} <= set(made.used_datasets())
    assert ("ood_val", "test") not in made.sets("five")
    assert evaluation.tuned(made, network=False) == "energy_id_only|energy_validation|knn_id_only|knn_validation"
    assert evaluation.tuned(made, network=True) == "odin_id_only|odin_validation"


@pytest.mark.parametrize(("change", "message"), [
    (tuning(ood=["ood_vla"]), r"tuning.ood of the experiments on 'five': 'ood_vla' is not known.*'ood_val'"),
    (tuning(id="five"), "tuning.id of the experiments on 'five': 'five' consists of the images of 'five' .test., the "
                        "ID test set"),
    (tuning(ood=["ood_test"]), "'ood_test' consists of the images of 'ood_test' .test., an OOD test set"),
    (tuning(ood=["five_val"]), "'five_val' consists of the images of 'five_val' .test., another validation set"),
    (tuning(id=None), "tuning: id and ood expected together"),
    (tuning(ood=["ood_val", "ood_val"]), "tuning.ood: each set once expected"),
    (tuning(pseudo_ood={"kind": "noise"}), r"experiments\[0\].tuning.pseudo_ood.kind: unknown key"),
    (tuning(pseudo_ood={"std": 0}), r"experiments\[0\].tuning.pseudo_ood.std"),
    (tuning(criteria="auroc"), "did you mean 'criterion'"),
    (lambda c: c["datasets"]["five_val"].update(classes=4), "tuning.id.*'five_val' has other classes than 'five'"),
    (lambda c: c["datasets"]["ood_val"]["splits"]["test"].update(files="./ood_test.npz"),
     "'ood_val' consists of the images of 'ood_test' .test., an OOD test set"),
    (lambda c: c["datasets"]["five_val"]["splits"]["test"].update(files="./id_train.npz"),
     "'five_val' consists of the images of 'five' .train., the ID train set"),
    (lambda c: c["experiments"][0].update(scores=["msp"]), "tuning: none of the experiment's scores has options"),
    (lambda c: (c["scores"].append({"name": "knn_id_only", "score": "knn"}),
                c["experiments"][0]["scores"].append("knn_id_only")), "it adds a score 'knn_id_only', and one is"),
    (lambda c: c["experiments"].append({**c["experiments"][0], "paper": "other", "tuning": {}}),
     r"experiments\[1\].tuning: another experiment on 'five' chooses options otherwise")])
def test_what_is_refused_before_the_first_job(tmp_path, change, message):
    with pytest.raises(OODError, match=message):
        plan(tmp_path, change)
