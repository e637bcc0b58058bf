"""What `limit.images` cuts, and what it says before the first job where it cannot."""

from __future__ import annotations

import csv
import json
from types import SimpleNamespace

import pytest
import yaml

from tests.checkout import ROOT, copy, snakemake
from workflow_scripts.config import catalogue
from workflow_scripts.core.errors import OODError
from workflow_scripts.wiring import evaluation, training
from workflow_scripts.work import limit
from workflow_scripts.work.expand import read_plan


def config(name: str) -> dict:
    return yaml.safe_load((ROOT / name).read_text())


def limited(name: str, images: int, **changes):
    return read_plan({**config(name), "limit": {"images": images, "steps": 2}, **changes}, ROOT, {})


def at(id: str, network: str, recipe: str, **more) -> SimpleNamespace:
    return SimpleNamespace(id=id, network=network, recipe=recipe, seed="0", **more)


@pytest.mark.parametrize(("name", "images", "count"), [
    ("cifar10", 48, 40), ("cifar10", 5, 20), ("cifar100", 48, 200), ("pool", 48, 48), ("pool", 2000, 952),
    ("tiny_imagenet", 450, 400)])
def test_train_images_that_are_left(name, images, count):
    """As many of each class, at least two: what the prepare stage takes."""
    rows = catalogue.load(ROOT / "config" / "datasets.yaml")
    assert limit.kept_images(rows[name], images) == count


@pytest.mark.parametrize(("name", "run", "images", "batch", "held"), [
    ("config/dfb.yaml", ("cifar10_128", "bit-r50x1", "dfb"), 48, 40, None),  # 128 are asked for
    ("config/dfb.yaml", ("cifar10_128", "bit-r50x1", "dfb-held-out"), 48, 35, 5),
    ("config/dfb.yaml", ("cifar10_128", "bit-r50x1", "dfb"), 4096, 128, None),
    ("config/bgresample.yaml", ("cifar100", "wrn40", "bg-full-ilsvrc"), 80, 128, None),  # 2 of each of 100 classes
    ("config.yaml", ("digits", "resnet-small", "pretrain"), 60, 56, None)])
def test_batches_and_held_out_images_fit_into_what_is_left(name, run, images, batch, held):
    found = json.loads(training.train_section(limited(name, images), at(*run)))["recipe"]
    assert found["training"]["batch_size"] == batch
    assert (found["validation"] or {}).get("count") == held


def test_outliers_and_their_selection_fit():
    """Of a labelled pool two of each class are left; a selection keeps 16 on average, of which a batch is half."""
    experiments = [{**one, "compat": []} for one in config("config/bgresample.yaml")["experiments"]]
    plan = limited("config/bgresample.yaml", 48, experiments=experiments)
    for recipe, batch, ratio in (("bg-full-ilsvrc", 48, None), ("bg-learned-1-ilsvrc", 8, 1 / 3),
                                 ("bg-random-30-ilsvrc", 8, 1 / 3)):
        run = at("cifar10", "wrn40", recipe)
        assert json.loads(training.train_section(plan, run))["recipe"]["outliers"]["batch_size"] == batch
        if ratio:
            assert json.loads(training.selection_section(plan, run))["ratio"] == pytest.approx(ratio)
    whole = read_plan(config("config/bgresample.yaml"), ROOT, {})
    assert json.loads(training.selection_section(whole, at("cifar10", "wrn40", "bg-learned-1-ilsvrc")))["ratio"] == 0.01


def test_neighbours_are_among_the_train_images_that_are_left():
    plan, run = limited("config/dfb.yaml", 48), ("cifar10_128", "bit-r50x1", "dfb")
    assert json.loads(evaluation.score_section(plan, at(*run, score="knn")))["options"]["K"] == 40  # 200 are asked for
    raw = config("config.yaml")
    raw["scores"] = [{"name": "knn_tuned", "score": "knn", "tune": {"sweep": {"K": [5, 50, 100]}}}]
    raw["experiments"] = [{**raw["experiments"][0], "scores": ["knn_tuned"]}]
    raw["papers"] = []
    plan = read_plan({**raw, "limit": {"images": 24}}, ROOT, {})
    found = json.loads(evaluation.sweep_section(plan, at("digits", "resnet-small", "pretrain", score="knn_tuned")))
    assert found["options"]["K"] == [5, 23]


def static(k: int) -> dict:
    raw = config("config.yaml")
    recipe = next(r for r in raw["recipes"] if r["name"] == "goe")
    recipe["options"] = {"filter": "static", "k": k}
    return {"recipes": raw["recipes"]}


@pytest.mark.parametrize(("images", "changes", "message"), [
    (8, {}, r"score 'mahalanobis_ensemble': it is fitted to at least 20 ID train images, not 16; 24 are enough"),
    (24, static(40), r"recipe 'goe': .*static' cannot use k = 40 with training.batch_size 24; 40 are enough"),
    (24, {"gpus": 25, "device": "cpu"}, r"recipe 'pretrain': batches of 24 cannot be shared by 25 GPUs; 32 are enough"),
])
def test_what_cannot_be_cut_is_refused_with_what_is_enough(images, changes, message):
    with pytest.raises(OODError, match=rf"limit.images: {images} are too few for {message}"):
        limited("config.yaml", images, **changes)
    enough = int(message.split("; ")[-1].split()[0])
    limited("config.yaml", enough, **changes)


def test_queues_are_full_before_the_training_ends():
    """NPOS draws outliers from queues of 1,000 features a class, of 300 of them and their neighbours."""
    plan = limited("config/npos.yaml", 48)
    for id, network, recipe, each, epochs, views in (("cifar10", "resnet18", "npos", 4, 500, 2),
                                                     ("cifar100", "resnet34", "npos-layer4", 2, 100, 2),
                                                     ("imagenet_clip", "clip-b16", "npos-clip", 2, 100, 1)):
        found = json.loads(training.train_section(plan, at(id, network, recipe)))["recipe"]
        whole = read_plan(config("config/npos.yaml"), ROOT, {}).run(at(id, network, recipe)).recipe.options
        assert (found["training"]["epochs"], found["views"]) == (epochs, views)
        for name in ("queue", "K", "select", "pick"):
            assert found["options"][name] == min(whole[name], each * views * (epochs - 1))


def test_a_full_size_configuration_runs_on_few_images(tmp_path):
    """Every stage of a classifier, DFB and KNN on 24 images where batches of 64 and 50 neighbours are asked for."""
    folder = copy(tmp_path)
    raw = config("config.yaml")
    raw |= {"variant": "few", "limit": {"images": 24, "steps": 2}, "seeds": [0], "papers": []}
    raw["experiments"] = [
        {**raw["experiments"][0], "scores": ["msp", "knn"], "ood": {"far": ["brick"]}},
        {**next(e for e in raw["experiments"] if e["paper"] == "dfb"), "scores": ["background", "knn"],
         "ood": {"far": ["brick"]}}]
    (folder / "few.yaml").write_text(yaml.safe_dump(raw))
    done = snakemake(folder, "posthoc_table", "dfb_table", "--cores", "1", "--configfile", "few.yaml")
    assert done.returncode == 0, done.stdout[-4000:]
    rows = list(csv.DictReader((folder / "results/few/tables/dfb.csv").open()))
    assert {row["score"] for row in rows} == {"background", "knn", "knn_fused"}


@pytest.mark.parametrize(("images", "message"), [
    (48, "limit.images: 48 are too few for compat 'bg-resample' on 'tiny_imagenet_id': it draws 80 images of "
         "'gaussian_10k', which then has 48; 80 are enough"),
    (80, None)])
def test_a_rule_that_draws_more_ood_images_than_there_are_is_refused_first(images, message):
    """A fifth of Tiny ImageNet's 400 test images, two of each class."""
    if message is None:
        limited("config/bgresample.yaml", images)
        return
    with pytest.raises(OODError, match=message):
        limited("config/bgresample.yaml", images)
