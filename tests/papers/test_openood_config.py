"""config/openood.yaml: its sets, trainings as OpenOOD's files state them, the full spectrum, and its graph of jobs."""

from __future__ import annotations

import json
import resource
from types import SimpleNamespace

import pytest
import yaml

from tests.checkout import ROOT, would_run
from workflow_scripts.core import plugins
from workflow_scripts.core.errors import OODError
from workflow_scripts.wiring import evaluation
from workflow_scripts.work.expand import read_plan
from workflow_scripts.work.plan import Key

RAW = yaml.safe_load((ROOT / "config" / "openood.yaml").read_text())
PLAN = read_plan(RAW, ROOT, {})
COUNTS = {  # near, far, ID test, validation: counted from the lists
    "openood_cifar10": ([9000, 7793], [70000, 26032, 5640, 35195], 9000, [1000, 1000]),
    "openood_cifar100": ([10000, 6526], [70000, 26032, 5640, 33773], 9000, [1000, 972]),
    "openood_imagenet200": ([49000, 5879], [10000, 5160, 15869], 9000, [1000, 1763]),
    "openood_imagenet": ([49000, 5879], [10000, 5160, 15869], 45000, [5000, 1763]),
    "openood_imagenet_swin": ([49000, 5879], [10000, 5160, 15869], 45000, [5000, 1763])}
CLIP_OR_BACKGROUND = {"mcm", "gl_mcm", "neglabel", "background", "fusion"}


@pytest.mark.parametrize("id", COUNTS)
def test_sets_have_the_protocols_counts(id):
    near, far, test, validation = COUNTS[id]
    groups: dict[str, list[int]] = {}
    for name, group in PLAN.ood[id].items():
        groups.setdefault(group, []).append(PLAN.datasets[name].counts["test"])
    assert groups == {"near": near, "far": far} and PLAN.datasets[id].counts["test"] == test
    assert [PLAN.datasets[name].counts["test"] for name, _ in PLAN.validation_sets(id)] == validation


def test_three_seeds_of_each_training_and_one_of_each_released_network():
    seeds = {}
    for run in PLAN.runs.values():
        seeds.setdefault((run.id, run.network.name, run.path_name), set()).add(run.seed)
    trained = {key for key, found in seeds.items() if found == {0, 1, 2}}
    assert {key[2] for key in trained if key[0] == "openood_cifar100"} == {
        "crossentropy", "oe", "mixoe", "vos", "logitnorm", "rotpred", "t2fnorm", "npos", "bg-weights", "bg-learned",
        "goe", "dfb"}
    assert {key[1:] for key in seeds.keys() - trained} == {
        ("resnet50", "torchvision"), ("vit-b-16", "torchvision"), ("swin-t", "torchvision")}
    released = {(one.key.id, one.key.recipe) for one in PLAN.left_out}  # optional: Google Drive gives them as zip files
    assert released == {(id, f"released-s{seed}") for seed in range(3)
                        for id in ("openood_cifar10", "openood_cifar100", "openood_imagenet200")}


def test_the_baseline_is_trained_as_openood_does():
    """configs/pipelines/train/baseline.yml, configs/datasets/*, openood/trainers/base_trainer.py at 3c35632."""
    for id, network, epochs, batch in (
            ("openood_cifar10", "resnet18", 100, 128), ("openood_cifar100", "resnet18", 100, 128),
            ("openood_imagenet200", "resnet18-224", 90, 256)):
        found = PLAN.runs[Key(id, network, "crossentropy", 0)].recipe.training.model_dump()
        assert (found["epochs"], found["batch_size"], found["lr"], found["momentum"], found["nesterov"],
                found["weight_decay"]) == (epochs, batch, 0.1, 0.9, True, 5e-4)
        assert found["schedule"]["name"] == "cosine" and found["lr"] * found["schedule"]["floor"] == pytest.approx(1e-6)


def test_outliers_are_tin597():
    wanted = {"oe", "mixoe", "goe", "bg-weights", "bg-learned"}
    found = {run.path_name: run.outliers for run in PLAN.runs.values() if run.outliers}
    assert found == dict.fromkeys(wanted, "openood_tin597")
    assert PLAN.datasets["openood_tin597"].counts == {"train": 29850}


def test_every_score_is_asked_for():
    named = {score.module for run in PLAN.runs.values() for score in run.scores.values()}
    assert set(plugins.names("scores")) - named == CLIP_OR_BACKGROUND - {"background", "fusion"}


def test_shifted_images_count_as_id_in_the_full_spectrum():
    wildcards = SimpleNamespace(id="openood_imagenet", network="resnet50", recipe="torchvision", seed="0")
    found = json.loads(evaluation.metrics_section(PLAN, wildcards))
    assert found["shifted"] == [f"openood_imagenet_{name}.test" for name in ("c", "r", "v2")]
    assert found["compat"] == ["openood", "openood-fs"]
    counts = {name: sum(PLAN.datasets[one].counts["test"] for one in names) for name, names in PLAN.shifted.items()}
    assert counts == {"openood_cifar10": 0, "openood_cifar100": 0, "openood_imagenet200": 34000,
                      "openood_imagenet": 50000, "openood_imagenet_swin": 50000}


@pytest.mark.parametrize(("changes", "words"), [
    ({"shifted": ["openood_cifar10_tin"]}, "'openood_cifar10_tin' is its OOD set; an image counts on one side"),
    ({"shifted": ["openood_imagenet_c"]}, "shifted and compat: .openood-fs. go together"),
    ({"compat": ["openood-fs"]}, "shifted and compat: .openood-fs. go together"),
])
def test_shifted_sets_and_their_rule_go_together(changes, words):
    raw = {**RAW, "experiments": [{**RAW["experiments"][0], **changes}]}
    with pytest.raises(OODError, match=words):
        read_plan(raw, ROOT, {})


@pytest.mark.slow
def test_the_graph_of_the_two_imagenet_benchmarks_is_built_quickly(tmp_path):
    """13,112 jobs of all four take 60 s of CPU on a machine that others use too, where config/paper.yaml has 149 jobs a
    second; here a part, far from that."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    jobs = would_run(tmp_path, "all", "--snakefile", str(ROOT / "Snakefile"), "--configfile",
                     str(ROOT / "config" / "openood.yaml"), "--config",
                     "only={ids: [openood_imagenet200, openood_imagenet]}")
    taken = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    assert jobs["pack_dataset"] >= 6 and jobs["fetch_archive"] > 10
    assert sum(jobs.values()) / taken > 60, f"{sum(jobs.values())} jobs in {taken:.1f} s of CPU"
