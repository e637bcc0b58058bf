"""Choosing among trained networks on held-out images: the configuration, the held-out outliers, the stage."""

from __future__ import annotations

import csv
import json
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
import yaml
from sklearn.metrics import roc_auc_score

from tests import typed
from tests.checkout import ROOT
from tests.config.test_config import small
from workflow_scripts.core.errors import OODError
from workflow_scripts.data.images.store import write_store
from workflow_scripts.data.reading import Images, array_blocks, unlabelled
from workflow_scripts.networks import checkpoint
from workflow_scripts.networks.load import build
from workflow_scripts.stages import prepare_dataset as prepare
from workflow_scripts.stages import select_best_recipe
from workflow_scripts.training.validation import hold_out
from workflow_scripts.wiring import evaluation, training
from workflow_scripts.work.expand import read_plan

ROWS = yaml.safe_load((ROOT / "config" / "datasets.yaml").read_text())
CHOICE = {"name": "goe-chosen", "label": "G-OE, chosen", "select_best": {"among": ["goe", "goe-k4"], "by": "fpr95"}}


def configured(*recipes: dict, pool: dict | None = None, **of_goe) -> dict:
    """The default configuration with G-OE at two k, held-out images and a choice (or other recipes)."""
    raw = small()
    goe = next(r for r in raw["recipes"] if r["name"] == "goe")
    goe.update(validation={"count": 40})
    raw["recipes"] += [{**goe, "name": "goe-k4", "options": {"k": 4}, **of_goe}, *(recipes or (CHOICE,))]
    raw["datasets"] = {"pool": {**ROWS["pool"], "hold_out": 50} if pool is None else pool}
    raw["experiments"][-1]["recipes"] = ["goe-chosen"]
    return raw


def wildcards(**names: str) -> SimpleNamespace:
    return SimpleNamespace(**{"id": "digits", "network": "resnet-small", "recipe": "goe-chosen", "seed": "0", **names})


# ---------------------------------------------------------------- configuration

def test_candidates_are_ordinary_trainings_and_the_choice_is_a_network():
    plan = read_plan(configured(), ROOT, {})
    assert {run.path_name for run in plan.runs.values()} == {"pretrain", "goe", "goe-k4", "goe-chosen"}
    assert {run.path_name for run in plan.reported("goe")} == {"goe-chosen"}
    inputs = training.select_best_inputs(plan, wildcards())
    assert inputs["checkpoints"] == [f"results/small/models/digits/resnet-small/{name}/seed0.pt"
                                     for name in ("goe", "goe-k4")]
    assert inputs["outliers"].endswith("data/pool.val.h5") and inputs["data"].endswith("data/digits.train.h5")
    assert ("pool", "val") in plan.used_datasets()
    section = json.loads(training.select_best_section(plan, wildcards()))
    assert section["candidates"] == ["goe", "goe-k4"] and section["by"] == "fpr95"
    assert section["validation"] == {"count": 40, "seed": 0, "list": None, "sha256": None}
    assert json.loads(evaluation.features_section(plan, wildcards(), "id"))["normalise"] == section["normalise"]
    assert (training.recipes(plan, chosen=True), training.recipes(plan, imported=True)) == ("goe\\-chosen", "(?!)")
    assert "chosen" not in training.recipes(plan)


def test_a_choice_carries_the_defects_of_its_candidates():
    plan = read_plan({**configured(), "fidelity": {"released": ["goe.2g-4"]}}, ROOT, {})
    assert {run.path_name for run in plan.runs.values()} == {"pretrain", "goe+2g-4", "goe-k4+2g-4", "goe-chosen+2g-4"}


@pytest.mark.parametrize(("raw", "message"), [
    (configured({**CHOICE, "keep": "best"}), r"'goe-chosen' chooses among others, which say themselves: keep"),
    (configured({**CHOICE, "select_best": {"among": ["goe"]}}), r"recipes\[\d+\]\.select_best\.among: .*at least 2"),
    (configured({**CHOICE, "select_best": {"among": ["goe", "gow"]}}), r"key select_best.among: 'gow' is not known"),
    (configured({**CHOICE, "select_best": {"among": ["goe", "goe-chosen"]}}), r"goes round in a circle"),
    (configured({**CHOICE, "select_best": {"among": ["goe", "goe-k4"], "by": "test"}}),
     r"select_best\.by: .*\(found 'test'\)"),
    (configured({**CHOICE, "select_best": {"among": ["goe", "pretrain"]}}),
     r"select_best.among: 'pretrain' lacks validation"),
    (configured(validation={"count": 41}), r"select_best.among: 'goe-k4' has another validation; all need the same"),
    (configured(pool=ROWS["pool"]), r"select_best.among: dataset 'pool' holds no outliers out; give its row hold_out"),
    (configured(pool={**ROWS["pool"], "hold_out": 9, "splits": {"test": {}}}), r"pool.*hold_out makes the split val"),
])
def test_refused_with_the_key(raw, message):
    with pytest.raises(OODError, match=message):
        read_plan(raw, ROOT, {})


# ---------------------------------------------------------------- held-out outliers

def test_held_out_images_are_no_train_images():
    labels = np.full(1003, -1)
    row = {"dataset": "x", "reader": "noise", "options": {"kind": "gaussian"}, "classes": 0, "geometry": "native",
           "limit_per_class": None, "sample": None, "count": None, "raw": [], "hold_out": 100}

    def select(**changes):
        return prepare.select(labels, typed.dataset({**row, **changes}))

    train, val = (select(split=split) for split in ("train", "val"))
    assert len(val) == 100 and sorted([*train, *val]) == list(range(1003))
    assert set(np.diff(val)) == {10, 11} and val[0] == 5  # evenly spread
    assert len(select(split="val", limit=7)) == 7
    with pytest.raises(OODError, match=r"hold_out: 1,003 of 1,003 images leave none to train on"):
        select(split="train", hold_out=1003)


# ---------------------------------------------------------------- stage

NETWORK = {"name": "small", "model": "resnet_cifar", "options": {"blocks": [1, 1, 1, 1], "width": 4}}
CONFIG = {"network": NETWORK, "candidates": ["a", "b", "c"], "by": "auroc", "batch_size": 16,
          "normalise": {"mean": [0.5] * 3, "std": [0.25] * 3}, "validation": {"count": 30, "seed": 1, "list": None}}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """An ID store, a pool, and three networks with random weights."""
    folder = tmp_path_factory.mktemp("choose")
    rng = np.random.default_rng(0)
    for name, count, classes in (("id", 80, ("zero", "one", "two")), ("pool", 25, ())):
        pixels = rng.integers(0, 256 if name == "id" else 160, (count, 16, 16, 3), dtype=np.uint8)
        labels = np.arange(count) % 3 if classes else unlabelled(count)
        raw = Images(labels, [str(i) for i in range(count)], classes, {}, array_blocks(pixels))
        write_store(folder / f"{name}.h5", raw, np.arange(count), classes,
                    {"dataset": name, "split": "train", "classes": classes}, lambda block: block)
    for seed, name in enumerate(CONFIG["candidates"]):
        torch.manual_seed(seed)
        network = build(typed.network(NETWORK), 3)
        torch.nn.init.normal_(network.head.weight, std=2.0)
        checkpoint.save(folder / f"{name}.pt", network, {"network": "small", "classes": ["zero", "one", "two"],
                                                         "seed": seed, "history": []})
    return folder


def choose(files, out, config=CONFIG) -> list[dict[str, str]]:
    select_best_recipe.main(["--config", json.dumps(config), "--checkpoints", *(str(files / f"{n}.pt") for n in "abc"),
                        "--data", str(files / "id.h5"), "--outliers", str(files / "pool.h5"), "--device", "cpu",
                        "--csv", str(out / "choice.csv"), "--out", str(out / "chosen.pt")])
    with open(out / "choice.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("by", select_best_recipe.HIGHER)
def test_the_best_on_held_out_images_is_copied(files, tmp_path, by):
    rows = choose(files, tmp_path, {**CONFIG, "by": by})
    assert [r["recipe"] for r in rows] == ["a", "b", "c"]
    assert {(r["n_id"], r["n_outliers"], r["by"]) for r in rows} == {("30", "25", by)}
    pick = max if select_best_recipe.HIGHER[by] else min
    winner = pick(rows, key=lambda r: float(r[by]))
    assert [r["recipe"] for r in rows if r["chosen"] == "1"] == [winner["recipe"]]
    assert (tmp_path / "chosen.pt").read_bytes() == (files / f"{winner['recipe']}.pt").read_bytes()


def test_only_held_out_images_count(files, tmp_path):
    """By hand: the softmax of the held-out images against all of the pool, not augmented."""
    rows = choose(files, tmp_path)
    _, held = hold_out(typed.validation(CONFIG["validation"]), 80)
    for row in rows:
        network = build(typed.network(NETWORK), 3)
        network.load_state_dict(checkpoint.read(files / f"{row['recipe']}.pt")["state_dict"])
        network.eval()
        values = []
        for name, keep in (("id", held.numpy()), ("pool", slice(None))):
            with h5py.File(files / f"{name}.h5") as file:
                x = torch.from_numpy(file["images"][:][keep]).permute(0, 3, 1, 2).float() / 255
            with torch.no_grad():
                values.append(network((x - 0.5) / 0.25).double().softmax(1))
        labels = held.numpy() % 3
        assert float(row["accuracy"]) == pytest.approx((values[0].argmax(1).numpy() == labels).mean())
        auroc = roc_auc_score([1] * 30 + [0] * 25, torch.cat([v.amax(1) for v in values]).numpy())
        assert float(row["auroc"]) == pytest.approx(auroc, abs=2e-3)  # ties at the network's float32


def test_of_equal_ones_the_first():
    rows = [{"auroc": 0.5, "fpr95": 0.2}, {"auroc": 0.9, "fpr95": 0.1}, {"auroc": 0.9, "fpr95": 0.1}]
    assert select_best_recipe.best(rows, "auroc") == select_best_recipe.best(rows, "fpr95") == 1


@pytest.mark.parametrize(("changes", "message"), [
    ({"by": "aurok"}, "(found 'aurok'); did you mean 'auroc'?"),
    ({"candidates": ["a", "b"]}, "--checkpoints: 2 candidates need as many, found 3"),
    ({"validation": None}, "no ID train image is held out"),
    ({"network": {**NETWORK, "options": {"blocks": [1, 1, 1, 1], "width": 8}}}, "is not of network 'small'"),
])
def test_what_is_wrong_is_named_and_nothing_written(files, tmp_path, capsys, changes, message):
    with pytest.raises(SystemExit):
        choose(files, tmp_path, {**CONFIG, **changes})
    assert message in capsys.readouterr().err and not list(tmp_path.iterdir())
