"""Options chosen on validation images and against pseudo-OOD copies, of every score of cached features with a space."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pandas as pd
import pytest

from tests.scores_data import evidence
from workflow_scripts.core import plugins
from workflow_scripts.core.errors import OODError
from workflow_scripts.metrics.ood import auroc, curve, fpr95
from workflow_scripts.scores import cached, knn
from workflow_scripts.scores.base import Batch, Known
from workflow_scripts.stages import choose_options as stage
from workflow_scripts.stages import score_sets

NAMES = [name for name in plugins.names("scores") if plugins.spec("scores", name).space
         and not plugins.spec("scores", name).needs & {"network", "scores"}]
INDEX = np.arange(0, 400, 2)
"""Train images that copies are made of."""


def write(group, features, head, labels=None, **more):
    for key, value in {"features": features, "logits": features @ head.weight.T + head.bias,
                       "labels": np.full(len(features), -1) if labels is None else labels, **more}.items():
        group[key] = value


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("choose")
    known, test = evidence(2, per_class=80)
    head, train = known.head, known.train_features
    rng = np.random.default_rng(9)
    with h5py.File(folder / "id.train.h5", "w") as file:
        write(file, train, head, known.train_labels)
    with h5py.File(folder / "validation.h5", "w") as file:
        write(file.create_group("val.test"), test.features[:40], head)
        write(file.create_group("other.test"), test.features[40:], head)
        write(file.create_group("another.test"), rng.gamma(0.7, 1.2, (30, train.shape[1])), head)
    with h5py.File(folder / "pseudo.h5", "w") as file:
        write(file, np.maximum(train[INDEX] + rng.normal(0, 0.8, (len(INDEX), train.shape[1])), 0), head, index=INDEX)
    with h5py.File(folder / "head.h5", "w") as file:
        file["weight"], file["bias"] = head.weight, head.bias
        file["bn_weight"], file["bn_bias"] = known.batchnorm.weight, known.batchnorm.bias
    with h5py.File(folder / "s.h5", "w") as file:
        file["class_means"], file["counts"], file["mean"] = (
            known.statistics.class_means, known.statistics.counts, known.statistics.mean)
    return folder


def choose(files, name, sets, id=None, **config):
    stage.main(["--config", json.dumps({"score": name, "id": id, **config}), "--sets", str(files / sets), "--train",
                str(files / "id.train.h5"), "--head", str(files / "head.h5"), "--statistics", str(files / "s.h5"),
                "--csv", str(files / "points.csv"), "--json", str(files / "choice.json")])
    return pd.read_csv(files / "points.csv"), json.loads((files / "choice.json").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_a_choice_is_the_best_point_and_what_the_score_itself_gives(files, name):
    """On validation images: the score stage with the chosen options has the AUROC and FPR95 that the choice states."""
    rows, choice = choose(files, name, "validation.h5", "val.test", at_most=12)
    space = plugins.spec("scores", name).space
    assert all(choice[option] in (*values, getattr(plugins.parse_options("scores", name, {}, ""), option))
               for option, values in space.items())
    assert choice["auroc"] == rows["auroc"].max() and len(rows) > 1
    score_sets.main(["--config", json.dumps({"score": name}), "--sets", str(files / "validation.h5"), "--train",
                     str(files / "id.train.h5"), "--head", str(files / "head.h5"), "--statistics", str(files / "s.h5"),
                     "--choice", str(files / "choice.json"), "--out", str(files / "out.h5")])
    with h5py.File(files / "out.h5") as file:
        curves = [curve(file["val.test"][:], file[other][:]) for other in ("other.test", "another.test")]
    assert choice["auroc"] == pytest.approx(np.mean([auroc(one) for one in curves]), abs=1e-12)
    assert choice["fpr95"] == pytest.approx(np.mean([fpr95(one) for one in curves]), abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_a_choice_without_ood_images(files, name):
    rows, choice = choose(files, name, "pseudo.h5", at_most=6)
    assert choice["auroc"] == rows["auroc"].max() and choice["points"] == len(rows)


@pytest.mark.parametrize("large", [False, True])
def test_images_that_copies_are_made_of_are_not_in_the_bank(files, monkeypatch, large):
    """By hand: neighbours among the odd train images alone, in memory and where the bank stays in its file."""
    if large:
        monkeypatch.setattr(cached, "LARGE", 1)
    rows, choice = choose(files, "knn", "pseudo.h5")
    with h5py.File(files / "id.train.h5") as file, h5py.File(files / "pseudo.h5") as copies:
        train, pseudo = file["features"][:], copies["features"][:]
    bank = knn.fit(knn.Options(K=10), Known(train_features=np.delete(train, INDEX, 0)))
    found = [knn.score(knn.Options(K=10), Known(), bank, Batch(features=part)) for part in (train[INDEX], pseudo)]
    row = rows.set_index("K").loc[10]
    assert row["auroc"] == pytest.approx(auroc(curve(*found)), abs=1e-9)
    left_out = rows[rows["why"].notna()]
    assert choice["left_out"] == len(left_out) and set(left_out["K"]) == {500, 1000}  # of 200 images


def test_options_as_configured_are_tried_even_outside_the_space(files):
    rows, _ = choose(files, "knn", "validation.h5", "val.test", options={"K": 7})
    assert rows["K"].iloc[0] == 7


def test_a_large_space_is_searched_one_option_after_the_other(files):
    space = plugins.spec("scores", "vra").space
    rows, choice = choose(files, "vra", "validation.h5", "val.test", at_most=10)
    assert len(rows) <= 1 + sum(map(len, space.values()))
    assert choice["auroc"] >= rows["auroc"].iloc[0]
    whole, best = choose(files, "vra", "validation.h5", "val.test", at_most=1000)
    assert len(whole) >= np.prod(list(map(len, space.values()))) and best["auroc"] >= choice["auroc"]


def test_by_fpr95(files):
    rows, choice = choose(files, "ash", "validation.h5", "val.test", criterion="fpr95")
    assert choice["fpr95"] == rows["fpr95"].min()


@pytest.mark.parametrize(("name", "sets", "id", "message"), [
    ("msp", "validation.h5", "val.test", "score 'msp' declares no options to search among"),
    ("odin", "validation.h5", "val.test", "score 'odin' needs network, which this stage does not read; options "),
    ("knn", "validation.h5", "vla.test", "the configuration asks for vla.test, the files hold another.test, other"),
    ("knn", "id.train.h5", "id.train", "--sets: no OOD set; expected at least one")])
def test_what_cannot_be_chosen_is_said_in_one_line(files, capsys, name, sets, id, message):
    with pytest.raises(SystemExit):
        choose(files, name, sets, id)
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_no_point_that_can_be_computed(files, capsys, monkeypatch):
    monkeypatch.setattr(stage.Trial, "_at", lambda self, options: OODError("too few"))
    with pytest.raises(SystemExit):
        choose(files, "ash", "validation.h5", "val.test")
    assert "score 'ash': no point of its space can be computed; the first: too few" in capsys.readouterr().err
