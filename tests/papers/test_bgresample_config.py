"""config/bgresample.yaml: its hyper-parameters, what it refuses, and every stage once at full architecture."""

from __future__ import annotations

import copy as copies
import csv
import io
import itertools
import json
from types import SimpleNamespace

import h5py
import lmdb
import numpy as np
import pytest
import scipy.io
import yaml
from PIL import Image

from tests.checkout import ROOT, copy, snakemake
from tests.config.test_config import small
from tests.papers.test_himplos_config import random_cifar, random_images
from workflow_scripts.core.errors import OODError
from workflow_scripts.metrics.rules.bg_resample import trial
from workflow_scripts.scores import msp
from workflow_scripts.scores.base import Batch
from workflow_scripts.stages import select_outliers
from workflow_scripts.wiring import training
from workflow_scripts.work.expand import read_plan

RAW = yaml.safe_load((ROOT / "config" / "bgresample.yaml").read_text())
PLAN = read_plan(RAW, ROOT, {})
BACKGROUNDS = {"ilsvrc": PLAN.runs["cifar10", "wrn40", "bg-full-ilsvrc", 0].recipe.outliers.dataset,
               "tiny": "tiny_images_but_cifar"}
# spec 1(a) and 1(d)
SGD = {"precision": "float32", "batch_size": 128, "lr": 0.1, "optimiser": "sgd", "momentum": 0.9, "nesterov": False,
       "weight_decay": 5e-4}


def wildcards(recipe: str, id: str = "cifar10", network: str = "wrn40") -> SimpleNamespace:
    return SimpleNamespace(id=id, network=network, recipe=recipe, seed="0")


def section(recipe: str, **where: str) -> dict:
    return json.loads(training.train_section(PLAN, wildcards(recipe, **where)))["recipe"]


def test_the_whole_paper():
    selections = [f"bg-{kind}-{background}" for background in BACKGROUNDS
                  for kind in ("full", "random", "learned", "weights")]
    paper = read_plan({**RAW, "only": {"papers": ["bgresample"]}}, ROOT, {})
    for id in ("cifar10", "cifar100", "tiny_imagenet_id"):
        found = {(r.path_name, r.seed) for r in paper.wanted.values() if (r.id, r.network.name) == (id, "wrn40")}
        assert found == {(name, seed) for name in ("bg-pretrain", *selections) for seed in range(3)}
        assert list(PLAN.ood[id]) == ["gaussian_10k", "uniform_10k", "textures_crop32", "lsun", "svhn_full",
                                      "places_crop32"]
    assert {r.network.name for r in PLAN.runs.values()} == {"resnet18", "densenet100", "wrn40", "wrn28"}
    assert {r.name: (r.model, r.options) for r in PLAN.config.networks if r.name.startswith("wrn")} == {
        "wrn40": ("wide_resnet_biased", {"depth": 40, "widen": 4, "dropout": 0.3}),
        "wrn28": ("wide_resnet_biased", {"depth": 28, "widen": 10, "dropout": 0.3})}


def test_pretraining():
    found = section("bg-pretrain")
    assert found["training"] == {**SGD, "epochs": 100, "drop_last": False, "schedule": {
        "name": "multistep", "milestones": [30, 60, 90], "gamma": 0.1, "floor": 0.0, "warmup": None, "steps": []}}
    assert found["augment"] == [{"random_crop": 4}, {"horizontal_flip": 0.5}]
    assert found["normalise"] == {"mean": [0.5] * 3, "std": [0.25] * 3}


@pytest.mark.parametrize("background", BACKGROUNDS)
@pytest.mark.parametrize("kind", ["full", "random", "learned", "weights"])
def test_background_epochs(background, kind):
    recipe = f"bg-{kind}-{background}"
    found, run = section(recipe), PLAN.run(wildcards(recipe))
    assert found["training"] == {**SGD, "epochs": 50, "drop_last": True, "schedule": {
        "name": "multistep", "milestones": [30], "gamma": 0.1, "floor": 0.0, "warmup": None, "steps": []}}
    learning = {"lr_weights": 100.0, "momentum_weights": 0.9, "snapshots": [1]} if kind == "weights" else {}
    assert found["options"] == {"coefficient": 0.5, "divergence": "uniform_kl", "background_bn": "eval", **learning}
    assert found["outliers"] == {"batch_size": 128, "order": "cycle"}  # spec 1(d): one endless cycle across epochs
    assert run.parent == "bg-pretrain" and run.outliers == BACKGROUNDS[background]
    if kind in ("random", "learned"):
        assert json.loads(training.selection_section(PLAN, wildcards(recipe))) == {
            "rule": kind, "ratio": 0.1, "size": "drawn", "seed": 0, "stream": f"cifar10/wrn40/{recipe}"}
        assert training.selection(PLAN, wildcards(recipe)) == f"results/paper/selection/cifar10/wrn40/{recipe}/seed0.h5"
    else:
        assert training.selection(PLAN, wildcards(recipe)) == []
    weights = f"results/paper/models/cifar10/wrn40/bg-weights-{background}/seed0.h5"
    assert training.selection_weights(PLAN, wildcards(recipe)) == (weights if kind == "learned" else [])


def test_one_vector_serves_every_ratio():
    raw = small("bgresample")
    plan = read_plan(raw, ROOT, {})
    inputs = {training.selection_weights(plan, SimpleNamespace(id="digits", network="resnet-small", recipe=r, seed="1"))
              for r in ("learned-10", "learned-30")}
    assert inputs == {"results/small/models/digits/resnet-small/weights/seed1.h5"}


def test_what_the_flags_of_the_release_can_do():
    """-p, --maxent, no --load-path, --optimizer Adam (spec 1a), and batch norm in train mode (1g-11)."""
    runs = {run.path_name: run for run in PLAN.reported("bgresample_ablation") if run.seed == 0}
    selects = [(s.rule, s.ratio) for run in runs.values() if (s := run.recipe.outliers.select)]
    assert {(rule, ratio) for rule in ("random", "learned") for ratio in (0.01, 0.03, 0.1, 0.3)} == set(selects)
    plain = section("bg-full-ilsvrc")
    scratch = {"training": {**plain["training"], "lr": 0.1}}  # --lr and its kin at their defaults
    for recipe, parent, differs in (
            ("bg-full-maxent", "bg-pretrain", {"options": {**plain["options"], "divergence": "entropy"}}),
            ("bg-full-train-bn", "bg-pretrain", {"options": {**plain["options"], "background_bn": "train"}}),
            ("bg-full-scratch", None, scratch),
            ("bg-full-scratch-train-bn", None,
             {**scratch, "options": {**plain["options"], "background_bn": "train"}}),
            ("bg-full-adam", "bg-pretrain", {"training": {
                **plain["training"], "optimiser": "adam", "lr": 0.001, "weight_decay": 0.0}})):
        assert section(recipe) == {**plain, **differs} and runs[recipe].parent == parent
    assert runs["bg-learned-maxent"].weights == "bg-weights-maxent"
    assert section("bg-weights-maxent")["options"]["divergence"] == "entropy"
    assert len({run.seed for run in PLAN.reported("bgresample_ablation")}) == 3


def test_adam_takes_no_momentum():
    raw = copies.deepcopy(RAW)
    next(r for r in raw["recipes"] if r["name"] == "bg-full-adam")["training"]["momentum"] = 0.9
    with pytest.raises(OODError, match=r"optimiser adam takes neither momentum nor nesterov"):
        read_plan(raw, ROOT, {})


def select(**changes) -> dict:
    raw = copies.deepcopy(small("bgresample"))
    recipe = next(r for r in raw["recipes"] if r["name"] == "learned-10")
    recipe["outliers"] = {**recipe["outliers"], "select": {**recipe["outliers"]["select"], **changes}}
    return raw


@pytest.mark.parametrize(("raw", "message"), [
    (select(ratio=0), r"outliers\.select\.ratio: .*greater than 0 .*found 0"),
    (select(ratio=1.5), r"outliers\.select\.ratio: .*less than or equal to 1 .*found 1\.5"),
    (select(weights=None), r"weights names a recipe exactly when rule is learned"),
    (select(rule="random"), r"weights names a recipe exactly when rule is learned"),
    (select(weights="wieghts"), r"'learned-10', key outliers\.select\.weights: 'wieghts' is not known; did you mean"),
    (select(weights="random-10"), r"recipe 'random-10' \(method background\) learns no weights"),
    (select(weights="learned-10"), r"learned-10 -> learned-10.* goes round in a circle"),
])
def test_selections_that_cannot_be_are_refused(raw, message):
    with pytest.raises(OODError, match=message):
        read_plan(raw, ROOT, {})


def test_weights_of_another_set_and_a_background_that_is_a_test_set_are_refused():
    raw = copies.deepcopy(small("bgresample"))
    weights = next(r for r in raw["recipes"] if r["name"] == "weights")
    weights["outliers"] = {**weights["outliers"], "dataset": "brick"}
    rows = yaml.safe_load((ROOT / "config" / "datasets.yaml").read_text())
    raw["datasets"] = {"brick": {**rows["brick"], "splits": {"train": {"pictures": ["brick"]},
                                                             "test": {"pictures": ["brick"]}}}}
    with pytest.raises(OODError, match=r"select\.weights: the weights are of 'brick', the outliers of 'pool'"):
        read_plan(raw, ROOT, {})
    for recipe in raw["recipes"]:
        if recipe.get("outliers"):
            recipe["outliers"] = {**recipe["outliers"], "dataset": "brick", "batch_size": 8}
    with pytest.raises(OODError, match=r"outliers\.dataset: 'brick' is an OOD test set of 'digits'"):
        read_plan(raw, ROOT, {})


def test_saturated_float32_probabilities_tie_as_released():
    """Spec 1g-10: a gap of 17.4 over two other classes is exactly 1 in float32; the release's FPR95 is then 100 %."""
    id_logits = np.zeros((200, 3), np.float32)
    id_logits[:, 0] = np.linspace(18, 30, 200)
    ood_logits = np.zeros((100, 3), np.float32)
    ood_logits[:, 0] = np.r_[np.full(90, 1.0), np.linspace(17.4, 17.9, 10)]
    found = {}
    for precision in ("float64", "float32"):
        options = msp.Options(precision=precision)
        scores = [msp.score(options, None, None, Batch(logits=z)) for z in (id_logits, ood_logits)]
        found[precision] = trial(*scores)["fpr95_ood"]
    assert found == {"float64": 0.0, "float32": 1.0}


def test_the_switch_of_the_scores_wants_its_score():
    raw = {**small("bgresample"), "fidelity": {"released": ["bgresample.1g-10"]}}
    with pytest.raises(OODError, match=r"fidelity.released: 'bgresample.1g-10' is a score of its own; add to scores"):
        read_plan(raw, ROOT, {})
    read_plan({**RAW, "fidelity": {"released": ["bgresample.1g-10"]}}, ROOT, {})


def random_data(root) -> None:
    """Small files in the official layouts of all that CIFAR-10 against ILSVRC reads."""
    rng = np.random.default_rng(0)
    (root / "cifar10").mkdir(parents=True)
    for file in ("data_batch_1.bin", "test_batch.bin"):
        (root / "cifar10" / file).write_bytes(random_cifar(rng, 400, 10, 1))
    for label in range(10):
        random_images(rng, root / "imagenet" / "train" / f"n{label:08d}", 30, 40)
    for name in ("dtd/images", "Places"):
        random_images(rng, root / name, 70, 50)
    (root / "svhn").mkdir()
    scipy.io.savemat(root / "svhn" / "test_32x32.mat", {
        "X": rng.integers(0, 256, (32, 32, 3, 80), dtype=np.uint8),
        "y": (np.arange(80) % 10 + 1).astype(np.uint8)[:, None]})
    (root / "lsun" / "test_lmdb").mkdir(parents=True)
    with (lmdb.open(str(root / "lsun" / "test_lmdb"), map_size=2**24) as environment,
          environment.begin(write=True) as store):
        for i in range(70):
            content = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (64, 50, 3), dtype=np.uint8)).save(content, "JPEG")
            store.put(f"{i:040d}".encode(), content.getvalue())


def test_each_network_and_id_set_has_its_own_draw(tmp_path):
    """The release draws anew in each run; one stream of a seed would give all 12 networks the same tenth."""
    store = tmp_path / "pool.h5"
    with h5py.File(store, "w") as file:
        file["images"] = np.zeros((5000, 1, 1, 3), np.uint8)
        file["labels"], file["names"] = np.full(5000, -1), np.full(5000, b"x")
        file.attrs.update(dataset="pool", split="train", classes="[]", definition="{}", sources="{}")
    kept = {}
    for id, network, seed in (("cifar10", "wrn40", "0"), ("cifar100", "wrn40", "0"), ("cifar10", "wrn28", "0"),
                              ("cifar10", "wrn40", "1")):
        at = SimpleNamespace(id=id, network=network, recipe="bg-random-ilsvrc", seed=seed)
        for out in (tmp_path / "kept.h5", tmp_path / "again.h5"):
            select_outliers.main(["--config", training.selection_section(PLAN, at), "--store", str(store),
                                  "--out", str(out)])
        with h5py.File(tmp_path / "kept.h5") as one, h5py.File(tmp_path / "again.h5") as again:
            kept[id, network, seed] = set(one["kept"][:].tolist())
            assert kept[id, network, seed] == set(again["kept"][:].tolist())
    for one, other in itertools.combinations(kept.values(), 2):
        assert 20 < len(one & other) < 80  # 50 expected of independent tenths, standard deviation 6.4


def test_a_given_seed_is_one_draw_for_all():
    """select.seed: the same images everywhere."""
    raw = copies.deepcopy(RAW)
    recipe = next(r for r in raw["recipes"] if r["name"] == "bg-random-ilsvrc")
    recipe["outliers"] = {**recipe["outliers"], "select": {"rule": "random", "ratio": 0.1, "seed": 7}}
    plan = read_plan(raw, ROOT, {})
    assert {training.selection_section(plan, wildcards("bg-random-ilsvrc", id, network)) for id, network in (
        ("cifar10", "wrn40"), ("cifar100", "wrn40"), ("cifar10", "wrn28"))} == {
        '{"ratio":0.1,"rule":"random","seed":7,"size":"drawn","stream":""}'}


@pytest.mark.slow
def test_every_full_size_stage_once_on_random_images(tmp_path):
    folder = copy(tmp_path / "checkout")
    random_data(tmp_path / "data")
    # WRN-40-4 through all stages; the other networks differ from it by their module alone
    raw = {**RAW, "variant": "limited", "limit": {"steps": 2, "images": 64}, "seeds": [0], "device": "cpu",
           "threads": 1, "features": {"batch_size": 32}}
    raw["recipes"] = [{**one, "training": {**one["training"], "batch_size": 32}} if "training" in one else one
                      for one in RAW["recipes"]]
    raw["experiments"] = [{**RAW["experiments"][0], "recipes": [
        "bg-pretrain", "bg-full-ilsvrc", "bg-random-ilsvrc", "bg-learned-ilsvrc"]}]
    (folder / "limited.yaml").write_text(yaml.safe_dump(raw))
    done = snakemake(folder, "--cores", "2", "--configfile", "limited.yaml", OOD_DATA=str(tmp_path / "data"))
    assert done.returncode == 0, done.stdout[-6000:]
    results = folder / "results" / "limited"
    rows = list(csv.DictReader((results / "tables" / "bgresample.csv").open()))
    assert {r["recipe"] for r in rows} == {"bg-pretrain", "bg-full-ilsvrc", "bg-random-ilsvrc", "bg-learned-ilsvrc"}
    with h5py.File(results / "models/cifar10/wrn40/bg-weights-ilsvrc/seed0.h5") as file:
        theta = file["theta"][:]
    assert len(theta) == 64 and theta.std() > 0
    with h5py.File(results / "selection/cifar10/wrn40/bg-learned-ilsvrc/seed0.h5") as file:
        assert file.attrs["images"] == 64 and 0 < len(file["kept"]) < 64
    for name in ("background_extremes", "background_weights", "detection_by_ratio"):
        assert (results / "figures" / "bgresample" / f"{name}.svg").stat().st_size > 1000
