"""config/dfb.yaml: its hyper-parameters, and every stage once at full architecture; bad configurations of DFB."""

from __future__ import annotations

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from tests import typed
from tests.checkout import ROOT, copy, snakemake
from tests.papers.test_himplos_config import random_data, random_images
from workflow_scripts.config import catalogue
from workflow_scripts.core import plugins
from workflow_scripts.core.errors import OODError
from workflow_scripts.data.archives.imagenet import class_list
from workflow_scripts.models import bit
from workflow_scripts.networks.load import build
from workflow_scripts.wiring import evaluation, training
from workflow_scripts.work.expand import read_plan
from workflow_scripts.work.fusion import columns

RAW = yaml.safe_load((ROOT / "config" / "dfb.yaml").read_text())
PLAN = read_plan(RAW, ROOT, {})
SETS = {"cifar10_128": ("cifar10_160", ["cifar100_128", "svhn_128", "places_128", "textures_128"]),
        "cifar100_128": ("cifar100_160", ["cifar10_128", "svhn_128", "places_128", "textures_128"]),
        "imagenet_subset_128": ("imagenet_subset_160", ["svhn_128", "places_128", "textures_128"])}


def wildcards(id: str, recipe: str, **more) -> SimpleNamespace:
    return SimpleNamespace(id=id, network="bit-r50x1", recipe=recipe, seed="0", **more)


@pytest.mark.parametrize("id", SETS)
def test_sets(id):
    images, ood = SETS[id]
    assert list(PLAN.ood[id]) == ood
    assert PLAN.datasets[id].geometry == "squash128" and PLAN.datasets[images].geometry == "squash160"
    assert PLAN.datasets[id].classes == PLAN.datasets[images].classes
    assert PLAN.datasets[id].options == PLAN.datasets[images].options
    assert PLAN.datasets["svhn_128"].counts["test"] == 26_032 and PLAN.datasets["places_128"].counts["test"] == 10_000
    for recipe in ("classifier", "dfb"):
        assert training.train_store(PLAN, wildcards(id, recipe)).endswith(f"data/{images}.train.h5")
    assert training.classifier(PLAN, wildcards(id, "dfb")).endswith(f"models/{id}/bit-r50x1/classifier/seed0.pt")


@pytest.mark.parametrize("id", SETS)
@pytest.mark.parametrize("recipe", ["classifier", "dfb"])
def test_training_is_that_of_the_description(id, recipe):
    """Sections 2a, 2c and 2e: batch 128, SGD 0.003 with momentum 0.9, no decay, BiT's rule, 160 -> 128 and mirrored."""
    found = json.loads(training.train_section(PLAN, wildcards(id, recipe)))["recipe"]
    assert found["training"] == {
        "epochs": None, "batch_size": 128, "lr": 0.003, "optimiser": "sgd", "momentum": 0.9, "nesterov": False,
        "weight_decay": 0.0, "drop_last": True, "precision": "float32", "schedule": {
            "name": "bit", "milestones": [], "gamma": 0.1, "floor": 0.0, "warmup": None, "steps": []}}
    assert found["augment"] == [{"random_crop": {"size": 128, "padding": 0}}, {"horizontal_flip": 0.5}]
    assert found["normalise"] == {"mean": [0.5] * 3, "std": [0.5] * 3}
    assert PLAN.runs[id, "bit-r50x1", recipe, 0].parent == "bit-m"
    if recipe == "classifier":
        assert (found["method"], found["options"], found["masks"]) == ("mixup", {"alpha": None}, False)
    else:
        assert (found["method"], found["options"], found["masks"]) == ("dense", {"head": "new", "mixup": 0.0}, True)


def test_pseudo_masks_scores_and_fusion_are_those_of_the_description():
    section = json.loads(training.masks_section(PLAN, wildcards("cifar10_128", "dfb")))
    options = section["options"]
    del options["batch_size"]
    assert options == {"by": "true", "scales": [1.0, 0.5, 1.5, 2.0], "flip": True, "sigma": 4.0, "threshold": 0.5}
    run = only("dfb").runs["cifar100_128", "bit-r50x1", "dfb", 0]  # without the ablation's scores
    assert run.scores["temperature"].options == {"temperature": 2}
    assert plugins.load("scores", "vim").dimension(None, 2048, "") == 1000
    assert run.scores["background"].options == {"form": "logit", "temperature": 1.0, "sign": "plus"}
    experiment = PLAN.experiments("dfb")[0]
    assert set(run.scores) == set(columns(experiment))
    for name in set(experiment.scores) - {"background"}:
        fused = run.scores[f"{name}_fused"]
        assert fused.options == {"base": name, "background": "background", "weight": 1.0, "normalise": "std"}
    needed = wildcards("cifar10_128", "dfb", score="energy")
    assert evaluation.score_inputs(PLAN, needed)["sets"][-1].endswith("cifar10_128.train.h5")


def only(paper: str):
    return read_plan({**RAW, "only": {"papers": [paper]}}, ROOT, {})


def test_the_target_dfb_asks_for_what_dfb_reads_and_no_imagenet():
    """The release has CIFAR alone; ImageNet is a target of its own (154 GB). Three seeds of everything."""
    def files(paper: str) -> set[str]:
        plan = only(paper)
        return {name for dataset, split in plan.used_datasets()
                for name in catalogue.files(plan.datasets[dataset], split)}

    for paper in ("dfb", "dfb_ablation"):
        assert not any("imagenet" in name.lower() or "ilsvrc" in name.lower() for name in files(paper))
        assert {run.seed for run in only(paper).wanted.values()} == {0, 1, 2}
    assert "imagenet/ILSVRC2012_img_train.tar" in files("dfb_imagenet")
    assert {run.id for run in only("dfb").wanted.values()} == {"cifar10_128", "cifar100_128"}


def test_images_are_held_out_only_where_pixels_are_measured_on_them():
    held = {run.path_name for run in PLAN.runs.values() if run.recipe.validation}
    assert held == {"dfb-held-out"}


def test_each_option_is_changed_alone():
    """Spec 2e, stages 2 to 4: what the release's options offer or what is not known of the dense training."""
    def found(recipe: str) -> dict:
        at = wildcards("cifar10_128", recipe)
        return {**json.loads(training.train_section(PLAN, at))["recipe"], "parent": PLAN.run(at).parent,
                "cut": json.loads(training.masks_section(PLAN, at))["options"]}

    plain, differs = found("dfb"), {}
    for run in PLAN.reported("dfb_ablation"):
        if run.network.name == "bit-r50x1":
            own = found(run.path_name)
            differs[run.path_name] = {key: own[key] for key in own if own[key] != plain[key]}
    cut = plain["cut"]
    assert differs == {
        "dfb": {}, "dfb-predicted": {"cut": {**cut, "by": "predicted"}},
        "dfb-one-scale": {"cut": {**cut, "scales": [1.0], "flip": False}},
        "dfb-unfiltered": {"cut": {**cut, "sigma": 0.0}}, "dfb-wide": {"cut": {**cut, "threshold": 0.3}},
        "dfb-tight": {"cut": {**cut, "threshold": 0.7}}, "dfb-mixup": {"options": {"head": "new", "mixup": 0.1}},
        "dfb-tuned": {"parent": "classifier"},
        "dfb-tuned-head": {"parent": "classifier", "options": {"head": "parent", "mixup": 0.0}},
        "dfb-held-out": {"validation": {"count": 1000, "seed": 0, "list": None, "sha256": None}}}
    halved = {run.network.name: run.network.options for run in PLAN.reported("dfb_ablation")}
    assert halved["bit-r50x1-half"] == {"size": "R50x1", "half_stride": True}
    scores = PLAN.runs["cifar10_128", "bit-r50x1", "dfb", 0].scores
    assert [scores[f"energy_fused_{name}"].options.get(key) for name, key in (
        ("0.1", "weight"), ("0.5", "weight"), ("2", "weight"), ("raw", "normalise"), ("softmax", "background"))] == [
        0.1, 0.5, 2.0, "none", "background_softmax"]


def test_the_network():
    network = PLAN.config.networks[0]
    assert network.options == {"size": "R50x1", "half_stride": False}
    with torch.device("meta"):
        built = build(typed.network({"name": "x", "model": network.model, "options": network.options}), 11)
    assert sum(p.numel() for p in built.parameters()) == 23_522_891


def test_as_released_both_recipes_carry_the_defect():
    plan = read_plan({**RAW, "fidelity": {"released": ["dfb.2h-1"]}}, ROOT, {})
    assert {key[2] for key in plan.runs if key[0] == "cifar100_128"} == {"bit-m", "classifier+2h-1", "dfb+2h-1"}
    assert plan.runs["cifar10_128", "bit-r50x1", "dfb+2h-1", 0].classifier == "classifier+2h-1"


def change(raw: dict, **entries) -> dict:
    """The configuration with entries of its dense recipe replaced."""
    return {**raw, "recipes": [{**r, **entries} if r["name"] == "dfb" else r for r in raw["recipes"]]}


@pytest.mark.parametrize(("raw", "message"), [
    (change(RAW, masks={"classifier": "clasifier"}), r"'clasifier' is not known; did you mean 'classifier'"),
    (change(RAW, masks={"classifier": "classifier", "options": {"sigm": 4}}),
     r"masks.options.sigm: unknown key 'sigm'; did you mean 'sigma'"),
    (change(RAW, images="cifar10_161"), r"recipe 'dfb', key images: 'cifar10_161' is not known"),
    (change(RAW, training={**RAW["recipes"][1]["training"], "epochs": 3}), r"epochs is required, but for schedule bit"),
    ({**RAW, "experiments": [{**RAW["experiments"][0], "recipes": ["classifier"]}]},
     r"'background' needs a background output; recipe 'classifier' has none"),
    ({**RAW, "experiments": [{**RAW["experiments"][0], "scores": ["msp"]}]},
     r"fusion.background: 'background' is not among the experiment's scores"),
    ({**RAW, "scores": [*RAW["scores"], {"name": "x", "score": "fusion", "options": {"base": "background"}}],
      "experiments": [{**RAW["experiments"][0], "scores": ["background", "x"], "fusion": None}]},
     r"'x' joins 'background' \(option base\), and scores of module background cannot be joined"),
    ({**RAW, "scores": [*RAW["scores"], {"name": "x", "score": "fusion", "options": {"base": "react_"}}],
      "experiments": [{**RAW["experiments"][0], "scores": ["background", "x"], "fusion": None}]},
     r"'x' joins 'react_' \(option base\), which is not among"),
])
def test_bad_configurations(raw, message):
    with pytest.raises(OODError, match=message):
        read_plan(raw, ROOT, {})


def test_a_classifier_of_yours_makes_the_pseudo_masks():
    """make_cam.py --model_path: a K-class checkpoint in the place of stage 1; nothing is trained for it."""
    given = {"file": "cls_pretrained_models/cifar10.pth.tar", "key": "model", "strip_prefix": "module."}
    own = {"name": "classifier", "label": "Classifier", "normalise": {"mean": [0.5] * 3, "std": [0.5] * 3},
           "checkpoint": given}
    recipes = [own, *(r for r in RAW["recipes"] if r["name"] != "classifier")]
    plan = read_plan({**RAW, "recipes": recipes, "experiments": RAW["experiments"][:1]}, ROOT, {})
    run = plan.runs["cifar10_128", "bit-r50x1", "classifier", 0]
    assert run.recipe.checkpoint.key == "model" and run.recipe.checkpoint.head == "load" and run.parent is None
    dfb = wildcards("cifar10_128", "dfb")
    assert training.classifier(plan, dfb).endswith("models/cifar10_128/bit-r50x1/classifier/seed0.pt")
    assert json.loads(training.masks_section(plan, dfb))["network"]["model"] == "bit"


@pytest.mark.parametrize("config", ["dfb.yaml", "dfb_small.yaml"])
def test_every_score_has_three_columns(config):
    plan = read_plan(yaml.safe_load((ROOT / "config" / config).read_text()), ROOT, {})
    run = next(r for r in plan.runs.values() if r.recipe.method == "dense")
    fused = {run.scores[s.options["base"]].module for s in run.scores.values() if s.module == "fusion"}
    [named] = {tuple(e.scores) for e in plan.experiments("dfb") if e.fusion}
    assert fused == {m for name in named if plugins.spec("scores", m := run.scores[name].module).joined}
    assert len(fused) >= 22  # all of them: not CLIP's, and none of BiT's batch norms, which it lacks
    assert {f"{name}_fused" for name in run.scores if f"{name}_fused" in run.scores} < set(columns(
        plan.experiments("dfb")[0])) and "background" in run.scores


@pytest.mark.slow
def test_every_full_size_stage_once_on_random_images(tmp_path):
    """BiT-R50x1 at 128x128 from an .npz; two steps of each training (the first has rate 0), pseudo-masks, the release's
    scores."""
    folder, data = copy(tmp_path / "checkout"), tmp_path / "data"
    random_data(data)
    for split in ("train", "val"):
        for label in range(5):
            random_images(np.random.default_rng(label), data / "imagenet" / split / f"n9{label:07d}", 2, 140)
    (data / "checkpoints" / "bit").mkdir(parents=True)
    torch.manual_seed(0)
    own = bit.build(bit.Options(), 1000).state_dict()
    arrays = {theirs: own[name].numpy() for theirs, name in bit._npz(bit.Options())}
    arrays = {name: a.transpose(2, 3, 1, 0) if a.ndim == 4 else a for name, a in arrays.items()}
    arrays["resnet/head/conv2d/kernel"] = arrays["resnet/head/conv2d/kernel"].T[None, None]
    np.savez(data / "checkpoints" / "bit" / "BiT-M-R50x1-ILSVRC2012.npz", **arrays)
    (folder / "classes.txt").write_text("".join(f"n9{label:07d}\n" for label in range(5)))
    raw = yaml.safe_load((ROOT / "config" / "dfb.yaml").read_text())
    raw |= {"variant": "limited", "limit": {"steps": 2, "images": 8}, "seeds": [0], "device": "cpu", "threads": 1,
            "features": {"batch_size": 10}}
    for row in raw["datasets"].values():
        row |= {"options": {"labels": "folders", "only": "classes.txt"}, "classes": 5}
    raw["datasets"] |= ten_classes()
    for recipe in raw["recipes"]:
        if "training" in recipe:
            recipe["training"] = {**recipe["training"], "batch_size": 4}
            recipe |= {"validation": {"count": 2}} if "masks" in recipe else {}
    whole, _, _, _, subset, *_ = raw["experiments"]
    whole = {**whole, "scores": ["background", "msp", "temperature", "energy", "vim", "odin"]}
    raw["experiments"] = [whole, {**subset, "scores": ["background", "energy"]}]
    (folder / "limited.yaml").write_text(yaml.safe_dump(raw))
    done = snakemake(folder, "--cores", "2", "--configfile", "limited.yaml", OOD_DATA=str(data))
    assert done.returncode == 0, done.stdout[-6000:]
    rows = list(csv.DictReader((folder / "results/limited/tables/dfb.csv").open()))
    found = {r["score"] for r in rows if r["metric"] == "auroc" and r["id"] == "cifar10_128"}
    assert found == {"background", *(f"{score}{end}" for score in whole["scores"][1:] for end in ("", "_fused"))}
    for picture in ("foreground_background", "score_scatter"):
        assert (folder / "results/limited/figures/dfb" / f"{picture}.svg").stat().st_size > 1000


def ten_classes() -> dict:
    """The CIFAR-10 rows as they are; here to keep the random data's counts out of the way."""
    rows = yaml.safe_load((ROOT / "config" / "datasets.yaml").read_text())
    return {name: {**rows[name], "counts": {}} for name in ("cifar10_128", "cifar10_160")}


def test_the_class_list_of_the_subset_is_a_file():
    for name in ("imagenet_subset_128", "imagenet_subset_160"):
        only = PLAN.datasets[name].options["only"]
        assert (ROOT / only).is_file() and len(class_list(only)) == PLAN.datasets[name].classes
