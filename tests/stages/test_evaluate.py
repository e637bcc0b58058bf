"""The evaluate stage: score files and ID features in, one long CSV out; what is wrong is named, nothing written."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import h5py
import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve

from workflow_scripts.config.models import Score
from workflow_scripts.core import plugins
from workflow_scripts.metrics import compat
from workflow_scripts.metrics.confidence import id_metrics, predict
from workflow_scripts.metrics.ood import ood_metrics
from workflow_scripts.metrics.rules import goe, openood, scood
from workflow_scripts.scores.base import Batch, Known
from workflow_scripts.stages import compute_metrics as stage
from workflow_scripts.stages.sections.compute_metrics import ComputeMetrics
from workflow_scripts.wiring import sections

CONFIG = {"id": "digits.test", "groups": {"near": ["digits89.test"], "far": ["faces.test", "noise.test"]}}
SIZES = {"digits.test": 50, "digits89.test": 20, "faces.test": 31, "noise.test": 12}
OOD_METRICS = ["auroc", "fpr95", "fpr95_ood", "aupr_in", "aupr_out", "detection_error"]
ID_METRICS = ["accuracy", "ece", "aurc", "eaurc", "augrc", "aupr_error", "fpr95_error"]


class Run:
    """Two scores and the ID features of one small network, in a folder."""

    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(3)
        self.features, self.out = folder / "features" / "digits.test.h5", folder / "metrics" / "seed1.csv"
        self.scores = [folder / "energy.h5", folder / "msp.h5"]
        self.features.parent.mkdir()
        self.logits = rng.normal(0, 2, (50, 4)).astype(np.float32)
        self.labels = np.where(rng.random(50) < 0.7, self.logits.argmax(1), rng.integers(0, 4, 50))
        with h5py.File(self.features, "w") as file:
            file["logits"], file["labels"] = self.logits, self.labels
        for path in self.scores:
            with h5py.File(path, "w") as file:
                for name, size in SIZES.items():
                    file[name] = rng.normal(name == "digits.test", 1, size)

    def set(self, path: Path, name: str, values: object) -> None:
        with h5py.File(path, "a") as file:
            file.pop(name, None)
            if values is not None:
                file[name] = values

    def main(self, config: object = CONFIG) -> list[dict[str, str]]:
        text = config if isinstance(config, str) else json.dumps(config)
        stage.main(["--config", text, "--scores", *map(str, self.scores), "--id-features", str(self.features),
                    "--out", str(self.out)])
        with open(self.out, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_rows_are_every_metric_of_every_score_and_set(run):
    rows = run.main()
    sets = [("digits", "id", ID_METRICS, "0"), ("digits89", "near", OOD_METRICS, "20"),
            ("faces", "far", OOD_METRICS, "31"), ("noise", "far", OOD_METRICS, "12")]
    assert [(r["score"], r["dataset"], r["group"], r["metric"], r["n_id"], r["n_ood"]) for r in rows] == [
        (score, name, group, metric, "50", n_ood)
        for score in ("energy", "msp") for name, group, metrics, n_ood in sets for metric in metrics]
    assert run.out.read_text().splitlines()[0] == "score,dataset,group,metric,value,n_id,n_ood"


def test_values_keep_every_digit_of_the_library(run):
    found = {(r["score"], r["dataset"], r["metric"]): float(r["value"]) for r in run.main()}
    predicted, probability = predict(run.logits)
    for path in run.scores:
        with h5py.File(path) as file:
            scores = {name: file[name][()] for name in SIZES}
        id_scores = scores.pop("digits.test")
        for metric, value in id_metrics(id_scores, predicted == run.labels, probability).items():
            assert found[path.stem, "digits", metric] == value
        for name, ood_scores in scores.items():
            for metric, value in ood_metrics(id_scores, ood_scores).items():
                assert found[path.stem, name.removesuffix(".test"), metric] == value


def test_compat_adds_each_papers_rules_with_the_images_they_use(run):
    papers = ["himplos", "goe", "bg-resample"]
    found = {(r["score"], r["dataset"], r["metric"]): r for r in run.main(CONFIG | {"compat": papers})}
    with h5py.File(run.scores[0]) as file:
        id_scores, ood_scores = file["digits.test"][()], file["faces.test"][()]
    for paper in papers:
        for metric, value in compat.OOD_RULES[paper](id_scores, ood_scores).items():
            assert float(found["energy", "faces", f"{metric}@{paper}"]["value"]) == value
    assert found["energy", "faces", "aupr_out@bg-resample"]["n_ood"] == "10"  # 20 % of 50
    assert found["energy", "faces", "aupr_out@goe"]["n_ood"] == "31"
    correct = run.logits.argmax(1) == run.labels
    assert float(found["energy", "digits", "aurc@goe"]["value"]) == goe.confidence(id_scores, correct)["aurc"]


GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "goe.npz")


@pytest.mark.parametrize(("confidence", "entry"), [
    ("conf_mcp", {"name": "msp"}), ("conf_mcp", {"name": "msp32", "score": "msp", "options": {"precision": "float32"}}),
    ("conf_margin", {"name": "margin"}), ("conf_entropy", {"name": "entropy"}), ("conf_energy", {"name": "energy"})])
@pytest.mark.parametrize("cut", [8, 24, 33])
def test_f1_is_that_of_the_released_confidences(tmp_path, confidence, entry, cut):
    """From logits through the score that is stored to the metric, against the release's confidences of these logits."""
    score = Score.model_validate(entry)
    module, logits = plugins.load("scores", score.module), GOLDEN["conf_logits"]
    values = module.score(module.Options(**score.options), Known(), None, Batch(logits=logits))
    path, features = tmp_path / f"{score.name}.h5", tmp_path / "a.test.h5"
    with h5py.File(path, "w") as file:
        file["a.test"], file["b.test"] = values[:cut], values[cut:]
    with h5py.File(features, "w") as file:
        file["logits"], file["labels"] = logits[:cut], GOLDEN["conf_targets"][:cut]
    section = ComputeMetrics.of(id="a.test", groups={"far": ["b.test"]}, compat=["goe"],
                                confidence={score.name: sections.confidence(score)})
    found = {row.metric: row.value for row in stage.evaluate([path], features, section)}
    precision, recall, thresholds = precision_recall_curve(np.arange(len(logits)) < cut, GOLDEN[confidence])
    at = np.argmin(np.abs(thresholds - 0.5))
    both = precision[at] + recall[at]  # 0 where no ID image is accepted: the release has F1 0 there
    assert found["f1@goe"] == pytest.approx(2 * precision[at] * recall[at] / both if both else 0, abs=1e-12)


def test_a_score_that_no_release_thresholds_has_no_f1(run):
    metrics = {r["score"]: set() for r in run.main()}
    for row in run.main(CONFIG | {"compat": ["goe"], "confidence": {"msp": "exp"}}):
        metrics[row["score"]].add(row["metric"])
    assert "f1@goe" in metrics["msp"] and metrics["msp"] - metrics["energy"] == {"f1@goe"}
    assert {sections.confidence(Score(name=name)) for name in ("knn", "mahalanobis", "fusion")} == {""}


def test_images_like_id_join_the_id_side_of_their_set_alone(run):
    """SC-OOD's reference protocol."""
    like = np.array([0.2, 1.5, -3.0])
    for path in run.scores:
        run.set(path, "like.test", like)
    config = CONFIG | {"compat": ["scood", "goe"], "id_like": {"faces.test": "like.test"}}
    found = {(r["score"], r["dataset"], r["metric"]): r for r in run.main(config)}
    with h5py.File(run.scores[0]) as file:
        id_scores, ood_scores, other = (file[f"{name}.test"][()] for name in ("digits", "faces", "noise"))
    for metric, value in scood.ood(np.concatenate([id_scores, like]), ood_scores).items():
        row = found["energy", "faces", f"{metric}@scood"]
        assert float(row["value"]) == value and row["n_id"] == "53"
    assert float(found["energy", "noise", "auroc@scood"]["value"]) == scood.ood(id_scores, other)["auroc"]
    assert float(found["energy", "faces", "auroc@goe"]["value"]) == goe.ood(id_scores, ood_scores)["auroc"]
    assert not any(dataset == "like" for _, dataset, _ in found)


def test_shifted_id_images_join_the_id_side_in_the_full_spectrum_alone(run):
    shifted = {"blur.test": np.array([0.5, -1.0]), "paint.test": np.array([2.5])}
    for path in run.scores:
        for name, values in shifted.items():
            run.set(path, name, values)
    config = CONFIG | {"compat": ["openood", "openood-fs"], "shifted": list(shifted)}
    found = {(r["score"], r["dataset"], r["metric"]): r for r in run.main(config)}
    with h5py.File(run.scores[0]) as file:
        id_scores, ood_scores = (file[f"{name}.test"][()] for name in ("digits", "faces"))
    joined = np.concatenate([id_scores, *shifted.values()])
    for rule, accepted in (("openood", id_scores), ("openood-fs", joined)):
        for metric, value in openood.ood(accepted, ood_scores).items():
            row = found["energy", "faces", f"{metric}@{rule}"]
            assert float(row["value"]) == value and row["n_id"] == str(accepted.size)


def test_a_set_that_holds_images_like_id_is_divided_for_the_reference_protocol_alone(run):
    """The other CIFAR: whole by G-OE's rule; by SC-OOD's, what its list gives an ID class is no OOD image."""
    with h5py.File(run.scores[0]) as file:
        id_scores, whole = (file[f"{name}.test"][()] for name in ("digits", "faces"))
    for path in run.scores:
        run.set(path, "part.test", whole[:20])
        run.set(path, "like.test", whole[20:])
    config = CONFIG | {"compat": ["scood", "goe"], "id_like": {"faces.test": "like.test"},
                       "listed": {"faces.test": "part.test"}}
    found = {(r["score"], r["dataset"], r["metric"]): r for r in run.main(config)}
    row = found["energy", "faces", "auroc@scood"]
    assert float(row["value"]) == scood.ood(np.concatenate([id_scores, whole[20:]]), whole[:20])["auroc"]
    assert (row["n_id"], row["n_ood"]) == (str(50 + 11), "20")
    row = found["energy", "faces", "auroc@goe"]
    assert float(row["value"]) == goe.ood(id_scores, whole)["auroc"] and (row["n_id"], row["n_ood"]) == ("50", "31")


def test_a_network_without_errors_gives_nan_where_undefined(run):
    run.set(run.features, "labels", run.logits.argmax(1))
    found = {r["metric"]: float(r["value"]) for r in run.main() if r["group"] == "id"}
    assert found["accuracy"] == 1 and math.isnan(found["aupr_error"]) and math.isnan(found["fpr95_error"])


def test_sets_of_one_image(run):
    run.set(run.scores[0], "faces.test", [0.5])
    assert all(np.isfinite(float(r["value"])) for r in run.main())


def test_blocks_of_logits_do_not_change_a_digit(run, monkeypatch):
    rows = run.main()
    monkeypatch.setattr(stage, "BLOCK", 7)
    assert run.main() == rows


def energy(name, values):
    return lambda run: run.set(run.scores[0], name, values)


def features(name, values):
    return lambda run: run.set(run.features, name, values)


@pytest.mark.parametrize(("breaks", "parts"), [
    (energy("faces.test", None), ["energy.h5: has no dataset 'faces.test'", "it holds", "noise.test"]),
    (energy("digits.test", np.zeros(49)), ["energy.h5, set 'digits.test'", "expected 50 scores", "found 49"]),
    (energy("noise.test", [0.0, math.nan]), ["energy.h5, set 'noise.test'", "found 1 NaN or infinite of 2"]),
    (energy("noise.test", np.zeros(0)), ["energy.h5, set 'noise.test'", "empty set"]),
    (energy("noise.test", np.zeros((2, 2))), ["energy.h5, set 'noise.test'", "shape (2, 2)"]),
    (lambda run: run.scores[0].unlink(), ["energy.h5: no such file; run the score stage"]),
    (lambda run: run.scores[0].write_text("no"), ["energy.h5: expected an HDF5 file"]),
    (lambda run: run.scores.append(run.features.parent / "energy.h5"), ["--scores", "share the name 'energy'"]),
    (features("logits", None), ["digits.test.h5: has no dataset 'logits'"]),
    (features("logits", np.zeros((49, 4))), ["digits.test.h5", "(50,) and (49, 4)"]),
    (features("logits", np.full((50, 4), np.nan)), ["digits.test.h5: logits", "diverged"]),
    (features("labels", np.full(50, -1)), ["digits.test.h5: expected labels 0 to 3, found -1 to -1"]),
    (features("labels", np.full(50, 4)), ["digits.test.h5: expected labels 0 to 3, found 4 to 4"]),
    (lambda run: run.features.unlink(), ["digits.test.h5: no such file; run the features stage"]),
])
def test_what_is_wrong_in_a_file_is_named_and_the_old_table_stays(run, capsys, breaks, parts):
    run.out.parent.mkdir()
    run.out.write_text("old")
    breaks(run)
    with pytest.raises(SystemExit) as end:
        run.main()
    message = capsys.readouterr().err
    assert end.value.code == 1 and message.startswith("error: ") and message.count("\n") == 1
    assert all(part in message for part in parts), message
    assert run.out.read_text() == "old" and len(list(run.out.parent.iterdir())) == 1


@pytest.mark.parametrize(("config", "parts"), [
    ("{", ["--config: Invalid JSON", "'{'"]),
    ("[]", ["--config: expected JSON text of a mapping"]),
    ({"groups": {}}, ["--config.id: required but missing"]),
    (CONFIG | {"group": {}}, ["--config.group: unknown key 'group'", "did you mean 'groups'?"]),
    (CONFIG | {"id": 3}, ["--config.id", "found 3"]),
    (CONFIG | {"groups": {"near": "faces.test"}}, ["--config.groups.near: Input should be a valid array"]),
    (CONFIG | {"groups": {"id": ["faces.test"]}}, ["groups: 'id'", "another name"]),
    (CONFIG | {"groups": {"near": ["faces.test"], "far": ["faces.test"]}}, ["'faces.test' is named more than once"]),
    (CONFIG | {"groups": {"near": ["digits.test"]}}, ["'digits.test' is named more than once"]),
    (CONFIG | {"compat": ["himplo"]}, ["--config.compat: 'himplo' is not known", "did you mean 'himplos'?"]),
    (CONFIG | {"id_like": {"face.test": "x"}}, ["id_like: OOD sets of groups expected", "'face.test'"]),
    (CONFIG | {"listed": {"face.test": "x"}}, ["listed: OOD sets of groups expected", "'face.test'"]),
    (CONFIG | {"listed": {"faces.test": "x"}}, ["listed: 'faces.test'", "id_like"]),
    (CONFIG | {"compat": "goe"}, ["--config.compat: Input should be a valid array"]),
    (CONFIG | {"compat": ["bg-resample"], "groups": {"far": ["small.test"]}}, ["set 'small.test'", "20 %", "found 9"]),
])
def test_what_is_wrong_in_the_configuration_is_named(run, capsys, config, parts):
    for path in run.scores:
        run.set(path, "small.test", np.zeros(9))
    with pytest.raises(SystemExit) as end:
        run.main(config)
    message = capsys.readouterr().err
    assert end.value.code == 1 and not run.out.exists()
    assert all(part in message for part in parts), message


def test_help_names_every_metric_and_paper(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "10000")  # no name is broken at its dash
    with pytest.raises(SystemExit) as end:
        stage.main(["--help"])
    text = capsys.readouterr().out
    assert end.value.code == 0
    assert not [name for name in (*OOD_METRICS, *ID_METRICS, *compat.OOD_RULES) if name not in text]
