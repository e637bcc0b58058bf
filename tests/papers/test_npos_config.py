"""config/npos.yaml: its hyper-parameters against the released scripts', and a step of each network at full size."""

from __future__ import annotations

import csv
import json
from types import SimpleNamespace

import pytest
import torch
import yaml

from tests import typed
from tests.checkout import ROOT, copy, snakemake
from tests.papers.test_himplos_config import random_data
from workflow_scripts.core import plugins
from workflow_scripts.core.errors import OODError
from workflow_scripts.methods.base import train_only
from workflow_scripts.networks.load import build
from workflow_scripts.training.loop import Images, Training
from workflow_scripts.wiring import evaluation, training
from workflow_scripts.work.expand import read_plan

RAW = yaml.safe_load((ROOT / "config" / "npos.yaml").read_text())
PLAN = read_plan(RAW, ROOT, {})
IDS = {"cifar10": "resnet18", "cifar100": "resnet34", "imagenet100_squash": "resnet101-512"}

# Section 4.2 of the spec, its table: K, S, P, L, m; flags of section 1.1.
SYNTHESIS = {"cifar10": (300, 200, 2, 600, 200), "cifar100": (300, 200, 2, 600, 200),
             "imagenet100_squash": (400, 50, 2, 1000, 2)}
COMMON = {"start": 200, "queue": 1000, "sigma": 0.1, "weight": 0.1, "w_comp": 1.0, "temperature": 0.1, "phi_lr": 0.1,
          "balanced": False, "train": []}
OWN = {"cifar10": {"momentum": 0.95, "projection": 128, "hidden": 128, "w_disp": 0.5},
       "cifar100": {"momentum": 0.5, "projection": 128, "hidden": 128, "w_disp": 0.5},
       "imagenet100_squash": {"momentum": 0.95, "projection": None, "hidden": 32, "w_disp": 0.0, "phi_lr": 1.0}}
CIFAR = {"epochs": 500, "batch_size": 256, "lr": 0.5, "optimiser": "sgd", "momentum": 0.9, "nesterov": True,
         "weight_decay": 1e-4, "drop_last": True, "precision": "float32", "schedule": {
             "name": "cosine_epochs", "milestones": [], "gamma": 0.1, "floor": 0.001, "warmup": None, "steps": []}}
LARGE = CIFAR | {"lr": 0.01, "batch_size": 512,
                 "schedule": CIFAR["schedule"] | {"warmup": {"epochs": 20, "start": 0.01}}}


def section(id: str, recipe: str) -> dict:
    wildcards = SimpleNamespace(id=id, network=IDS[id], recipe=recipe, seed="0")
    return json.loads(training.train_section(PLAN, wildcards))


@pytest.mark.parametrize("id", IDS)
def test_hyper_parameters(id):
    recipe = section(id, "npos")["recipe"]
    options = dict(recipe["options"])
    names = ("K", "select", "pick", "sample_from", "keep")
    assert tuple(options.pop(name) for name in names) == SYNTHESIS[id]
    assert options.pop("snapshots") == [201, 300, 400, 500]
    assert options == COMMON | OWN[id]
    assert recipe["training"] == (LARGE if id == "imagenet100_squash" else CIFAR)
    if id == "imagenet100_squash":  # set_loader of train_im100.py: train images pass the transform of the test images
        assert recipe["views"] == 1 and recipe["augment"] == [] and recipe["initialisation"] is None
        return
    assert recipe["views"] == 2  # 2 x 256 = 512 images a step
    assert recipe["initialisation"] == "fan_out"
    crop, *rest = recipe["augment"]
    assert crop["random_resized_crop"]["size"] == 32 and crop["random_resized_crop"]["scale"] == [0.2, 1.0]
    jitter = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1, "p": 0.8}
    assert rest == [{"horizontal_flip": 0.5}, {"color_jitter": jitter}, {"grayscale": 0.2}]


@pytest.mark.parametrize("id", ["cifar10", "cifar100"])
def test_the_ablation_differs_by_its_defects_alone(id):
    plain = section(id, "npos")
    for recipe, defects in (("npos-queue+B1", ["npos.B1"]), ("npos-rejection+B2", ["npos.B2"]),
                            ("npos-both+B1+B2", ["npos.B1", "npos.B2"])):
        assert section(id, recipe) == plain | {"released": defects}
    without = section(id, "cider")["recipe"]
    assert without["options"]["weight"] == 0 and without["training"] == plain["recipe"]["training"]
    shared = ("w_disp", "w_comp", "temperature", "momentum", "projection")
    assert all(without["options"][key] == plain["recipe"]["options"][key] for key in shared)
    assert {r.path_name for r in PLAN.reported("npos_ablation") if r.id == id} == {
        "npos", "npos-queue+B1", "npos-rejection+B2", "npos-both+B1+B2", "cider"}
    assert len({run.seed for run in PLAN.runs_of(PLAN.experiments("npos_ablation")[0])}) >= 3


@pytest.mark.parametrize(("id", "network", "own", "epochs", "batch"), [
    ("imagenet100_clip", "clip-b16-100", {"start": 10, "pick": 3, "snapshots": [11, 15, 20]}, 20, 800),
    ("imagenet_clip", "clip-b16", {"start": 40, "pick": 1, "snapshots": [41, 60, 80, 100]}, 100, 1000),
])
def test_clip(id, network, own, epochs, batch):
    wildcards = SimpleNamespace(id=id, network=network, recipe="npos-clip", seed="0")
    found = json.loads(training.train_section(PLAN, wildcards))["recipe"]
    assert found["options"] == own | {
        "queue": 1000, "K": 400, "select": 300, "sample_from": 1500, "keep": 2, "sigma": 0.1, "weight": 0.1, "T": 8.0,
        "hidden": 32, "phi_lr": 0.1, "balanced": False}
    assert found["training"] == CIFAR | {
        "epochs": epochs, "batch_size": batch, "lr": 0.1, "drop_last": False,
        "schedule": {"name": "multistep", "milestones": [60], "gamma": 0.1, "floor": 0.0, "warmup": None, "steps": []}}
    assert found["views"] == 1 and not found["augment"]
    assert training.tokens(PLAN, wildcards).endswith(f"trunk/{id}/{network}/clip/seed0.h5")
    assert training.parent(PLAN, wildcards).endswith(f"models/{id}/{network}/clip/seed0.pt")
    rows = PLAN.datasets
    assert {rows[name].geometry for name in (id, *PLAN.ood[id])} == {"crop224bicubic"}


# what each script has, of those that change numbers: docs/npos.md
SCRIPTS = [
    ("cifar10", "resnet18", "npos", "B1+B12+B2+B5+B7"), ("cifar100", "resnet34", "npos", "B1+B12+B2+B5"),
    ("imagenet100_squash", "resnet101-512", "npos", "B1+B11+B13+B2"),
    ("imagenet100_clip", "clip-b16-100", "npos-clip", "B14+B2"),
    ("imagenet_clip", "clip-b16", "npos-clip", "B14+B2"), ("cifar10", "resnet18", "cider", "B12+B7"),
    ("cifar10", "resnet18", "vos", ""), ("imagenet100_clip", "clip-b16-100-linear", "clip-finetuned", ""),
]
ALL = ["npos.B1", "npos.B2", "npos.B5", "npos.B7", "npos.B11", "npos.B12", "npos.B13", "npos.B14"]


@pytest.fixture(scope="module")
def as_released():
    return read_plan(RAW | {"fidelity": {"released": ALL}}, ROOT, {})


@pytest.mark.parametrize(("id", "network", "recipe", "defects"), SCRIPTS)
def test_as_released_each_recipe_has_the_defects_of_its_own_script(as_released, id, network, recipe, defects):
    name = f"{recipe}+{defects}" if defects else recipe
    assert as_released.runs[id, network, name, 0].released == tuple(f"npos.{d}" for d in defects.split("+") if d)


def test_a_defect_that_a_script_lacks_is_refused():
    def changed(**keys):
        recipes = [{**r, **keys} if r["name"] == "npos-clip" else r for r in RAW["recipes"]]
        read_plan(RAW | {"recipes": recipes}, ROOT, {})

    with pytest.raises(OODError, match=r"'npos-clip'.released: .* for 'npos.B5', .* \(it has: npos.B14, npos.B2\)"):
        changed(released=["npos.B5"])
    with pytest.raises(OODError, match=r"defects: 'npos.B1'"):
        changed(defects=["npos.B1"])
    with pytest.raises(OODError, match=r"for 'npos.B2', .* defects leaves it out \(it has: npos.B14\)"):
        changed(defects=["npos.B14"], released=["npos.B2"])


def test_imagenet100_from_scratch_as_its_script_trains():
    """Its own loss is compactness alone (B11); the completed recipe differs by that one defect and the warm-up's."""
    plain, script = section("imagenet100_squash", "npos"), section("imagenet100_squash", "npos-script+B11+B13")
    assert script == plain | {"released": ["npos.B11", "npos.B13"], "start": None}  # another first epoch
    assert not any(run.id == "imagenet100_squash" and run.recipe.name == "cider" for run in PLAN.runs.values())
    sets = ("imagenet100_squash", *PLAN.ood["imagenet100_squash"])
    assert {PLAN.datasets[name].geometry for name in sets} == {"squash224bicubic"}


def test_baselines_of_the_clip_table():
    for place, network in (("imagenet100_clip", "clip-b16-100"), ("imagenet_clip", "clip-b16")):
        with_outliers, without = (PLAN.runs[place, network, n, 0].recipe for n in ("npos-clip", "clip-logitnorm"))
        assert without.options == {**with_outliers.options, "weight": 0.0}
        assert without.training == with_outliers.training
        tuned = PLAN.runs[place, f"{network}-linear", "clip-finetuned", 0]
        assert {score.module for score in tuned.scores.values()} == {"msp", "energy", "odin", "vim", "knn"}
        assert tuned.network.options == {**PLAN.runs[place, network, "clip", 0].network.options, "head": "linear"}
    from workflow_scripts.models import clip_vit
    with torch.device("meta"):
        net = clip_vit.build(clip_vit.Options(head="linear"), 100)
    train_only(net, tuned.recipe.options["train"])
    trained = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    tail = {id(parameter) for parameter in net.tail()}
    assert trained == {n for n, p in net.named_parameters() if id(p) in tail} | {"fc.weight", "fc.bias"}


def test_the_released_cifar_evaluation_stands_beside_ours():
    """Five sets, 156 batches of 64 of the larger ones, LSUN-C in its own size, SVHN out of the whole test split."""
    for id in ("cifar10", "cifar100"):
        named = [name for name, group in PLAN.ood[id].items() if group == "released"]
        rows = {name.removesuffix("_released"): PLAN.datasets[name] for name in named}
        assert {name: row.counts["test"] for name, row in rows.items()} == {
            "lsun_c": 9984, "isun": 8925, "svhn": 9984, "places365": 9984, "textures": 5640}
        assert rows["svhn"].limit_per_class is None and rows["lsun_c"].geometry == "native"
        assert {n for n, row in rows.items() if row.sample} == {"svhn", "lsun_c", "places365"}
        assert 10_000 // 64 * 64 == 9984


def test_imagenet100_is_the_list_of_the_release():
    """Numbers among the 1,000 sorted ids, as the text head names them, and the ids that the images are taken by."""
    lines = (ROOT / "config" / "lists" / "imagenet100.txt").read_text().splitlines()
    pairs = [line.split("#") for line in lines if line.startswith("n")]
    numbers = next(n for n in PLAN.config.networks if n.name == "clip-b16-100").options["imagenet"]
    assert [int(number) for _, number in pairs] == numbers and len(set(numbers)) == 100
    assert numbers[:5] == [125, 788, 630, 535, 474] and numbers[-1] == 708
    assert [name.strip() for name, _ in pairs[:5]] == ["n01986214", "n04200800", "n03680355", "n03208938", "n02963159"]


def test_test_sets_and_neighbours():
    for id in ("cifar10", "cifar100"):
        assert [name for name, group in PLAN.ood[id].items() if group == "far"] == [
            "svhn_10k", "textures_crop32", "places365_crop32", "lsun_c", "lsun_r", "isun"]
    assert list(PLAN.ood["imagenet100_squash"]) == [
        "inaturalist_squash", "sun_squash", "places_squash", "textures_squash"]
    scores = next(r for r in PLAN.runs.values() if r.path_name == "npos").scores
    assert {s.options.get("K") for s in scores.values() if not s.tune} == {50, 100, 200, 300, 500, 1000}


def test_as_released_cifar10_is_evaluated_with_another_deviation():
    raw = yaml.safe_load((ROOT / "config" / "npos.yaml").read_text()) | {"fidelity": {"released": ["npos.B7"]}}
    plan = read_plan(raw, ROOT, {})
    for id, recipe, train, test in (("cifar10", "npos+B7", [0.2471, 0.2435, 0.2616], [0.2023, 0.1994, 0.2010]),
                                    ("cifar100", "npos", [0.2675, 0.2565, 0.2761], [0.2675, 0.2565, 0.2761])):
        wildcards = SimpleNamespace(id=id, network=IDS[id], recipe=recipe, seed="0")
        assert json.loads(training.train_section(plan, wildcards))["recipe"]["normalise"]["std"] == train
        assert json.loads(evaluation.features_section(plan, wildcards, "id"))["normalise"]["std"] == test


def test_the_test_images_are_read_only_as_released():
    raw = yaml.safe_load((ROOT / "config" / "npos.yaml").read_text()) | {"fidelity": {"released": ["npos.B12"]}}
    for plan, recipe, expected in ((PLAN, "npos", []), (read_plan(raw, ROOT, {}), "npos+B12", "cifar10.test.h5")):
        wildcards = SimpleNamespace(id="cifar10", network="resnet18", recipe=recipe, seed="0")
        found = training.test_images(plan, wildcards)
        assert found == expected or found.endswith(expected or "?")


@pytest.mark.slow
@pytest.mark.parametrize(("id", "recipe", "prefixes"), [
    *(("cifar10", recipe, None) for recipe in ("npos", "npos-both+B1+B2", "cider", "npos-ce", "vos")),
    ("cifar100", "npos", None), ("cifar100", "npos-layer4", {"layer4"}), ("imagenet100_squash", "npos", None),
    ("imagenet100_squash", "npos-pretrained", {"layer4", "proj"}),
])
def test_a_step_at_full_architecture(id, recipe, prefixes):
    """Random images, four of them in a batch; queues are filled beforehand, so that outliers are synthesised."""
    found = section(id, recipe)
    classes, side = (10, 32) if id == "cifar10" else (100, 64 if id == "imagenet100_squash" else 32)
    options = found["recipe"]["options"]
    if "start" in options and options.get("weight"):
        options |= {"start": 0, "queue": min(options["queue"], 8 if id == "imagenet100_squash" else 1000)}
        if id == "imagenet100_squash":
            options |= {"K": 4, "select": 5}
    short = found["recipe"] | {"training": found["recipe"]["training"] | {"batch_size": 4}}
    if short["augment"] and "random_resized_crop" in short["augment"][0]:
        short["augment"][0]["random_resized_crop"]["size"] = side
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (classes, side, side, 3), dtype=torch.uint8, generator=generator)
    data = Images(pixels, torch.arange(classes))
    released = tuple(found["released"])
    method = plugins.load("methods", short["method"]).build(
        plugins.parse_options("methods", short["method"], options, ""), released)
    torch.manual_seed(0)
    network = build(typed.network(found["network"]), classes)
    before = {k: v.clone() for k, v in network.named_parameters()}
    training = Training(network, method, data, typed.recipe(short), 0, None, released)
    if hasattr(method, "queues"):
        queues = method.queues
        rows = torch.randn(queues.norm.numel(), queues.unit.shape[2]).relu()
        queues.push(rows, torch.arange(classes).repeat(queues.length))
    # begin() and finish() pass over all images: more than a test needs
    training.method.begin = training.method.finish = lambda network, eval_data: None
    if hasattr(method, "prototypes"):
        method.prototypes.copy_(torch.nn.functional.normalize(torch.randn_like(method.prototypes), dim=1))
    history = training.run(1, report=lambda line: None)
    assert len(history) == 1
    if hasattr(method, "phi"):
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.phi.parameters())
    changed = {k.split(".")[0] for k, v in network.named_parameters() if not torch.equal(v, before[k])}
    assert changed == prefixes if prefixes else "layer1" in changed


@pytest.mark.slow
def test_the_stages_of_cifar10_once_on_random_images(tmp_path):
    """Two steps of each training at full architecture, its probe, features, K by the sweep, tables and figures."""
    folder = copy(tmp_path / "checkout")
    random_data(tmp_path / "data")
    first = RAW["experiments"][0]
    raw = {**RAW, "variant": "limited", "limit": {"steps": 2, "images": 320}, "seeds": [0], "device": "cpu",
           "threads": 1, "features": {"batch_size": 32}, "experiments": [
               {**first, "recipes": ["npos", "vos"], "scores": ["knn_300", "knn_50", "knn_chosen"]}]}
    raw["papers"] = [{**paper, "pictures": [], "headline": ""} for paper in RAW["papers"]]
    (folder / "limited.yaml").write_text(yaml.safe_dump(raw))
    done = snakemake(folder, "--cores", "2", "npos", "--configfile", "limited.yaml", OOD_DATA=str(tmp_path / "data"))
    assert done.returncode == 0, done.stdout[-6000:]
    rows = list(csv.DictReader((folder / "results/limited/tables/npos.csv").open()))
    found = {(r["recipe"], r["score"]) for r in rows if r["metric"] == "auroc"}
    assert found == {(recipe, score) for recipe in ("npos", "vos")
                     for score in ("knn_300", "knn_50", "knn_chosen")}
    accuracies = {r["recipe"]: float(r["mean"]) for r in rows if r["metric"] == "accuracy"}
    assert accuracies.keys() == {"npos", "vos"} and all(0 <= a <= 1 for a in accuracies.values())
