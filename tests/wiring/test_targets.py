"""Targets and names are known, or refused with the nearest one, before the first job."""

from __future__ import annotations

import copy

import pytest

from tests.checkout import ROOT, snakemake
from tests.everyday_data import TINY, write
from workflow_scripts.core.errors import OODError
from workflow_scripts.wiring.targets import check, check_papers, rules, targets
from workflow_scripts.work.expand import read_plan

PLAN = read_plan(TINY, ROOT, {})


def with_papers(*names: str):
    config = copy.deepcopy(TINY)
    for experiment, name in zip(config["experiments"], names, strict=True):
        experiment["paper"] = name
    return read_plan(config, ROOT, {})


def test_every_rule_is_known():
    assert {"all", "prepare_dataset", "train_network", "make_report", "datasets", "optional_weights"} <= rules()
    assert not rules() & set(targets(PLAN))


@pytest.mark.parametrize(("papers", "message"), [
    (("all", "b"), "paper 'all': 'all' would be its target, and is a rule of the workflow already"),
    (("datasets", "b"), "paper 'datasets': 'datasets' would be its target"),
    (("train_network", "b"), "call the paper e.g. 'train_network_paper'"),
    (("a", "a_table"), "paper 'a_table': 'a_table' would be its target, and is a target of paper 'a' already"),
    (("a_roc", "a"), "paper 'a': 'a_roc' would be its target"),
])
def test_a_paper_is_called_neither_as_a_rule_nor_as_a_part_of_another(papers, message):
    with pytest.raises(OODError) as said:
        check_papers(with_papers(*papers))
    assert message in str(said.value) and "\n" not in str(said.value)


def test_papers_of_one_name_or_of_others_are_fine():
    check_papers(PLAN)
    check_papers(with_papers("a", "a"))


GOOD = ["all", "first", "second_table", "first_roc", "train_network", "results/report.html", "results/tiny/report.html",
        "results/tiny/cards.json", "results/tiny/data/faces.test.h5", "results/tiny/data/cifar10.train.h5",
        "results/tiny/models/digits/net/ce/seed0.pt", "results/tiny/features/digits/net/oe/seed0/digits.test.h5",
        "results/tiny/scores/digits/net/ce/seed0/msp.h5", "results/tiny/tables/first.csv",
        "results/tiny/tables/first.manifest.json", "results/tiny/figures/second/roc.svg",
        "results/tiny/logs/models/digits/net/ce/seed0.log", "resources/archives/dtd-r1.0.1.tar.gz", "of/another/tool",
        "results/published_checks/published_checks.html", "published_checks"]
BAD = [
    ("frist", "target: 'frist' is not known; did you mean 'first'?"),
    ("posthoc", "target: 'posthoc' is not known"),
    ("first_tabel", "did you mean 'first_table'?"),
    ("train_netwrok", "did you mean 'train_network'?"),
    ("resuls/tiny/report.html", "folder: 'resuls' is not known; did you mean 'results'"),
    ("resource/archives/x.tar", "folder: 'resource' is not known; did you mean 'resources'"),
    ("results/tinny/report.html", "variant: 'tinny' is not known; did you mean 'tiny'?"),
    ("results/tiny/date/faces.test.h5", "folder: 'date' is not known; did you mean 'data'?"),
    ("results/tiny/data/face.test.h5", "dataset: 'face' is not known; did you mean 'faces'?"),
    ("results/tiny/data/faces.train.h5", "split: 'train' is not known"),
    ("results/tiny/models/digit/net/ce/seed0.pt", "ID set: 'digit' is not known; did you mean 'digits'?"),
    ("results/tiny/models/digits/nett/ce/seed0.pt", "network: 'nett' is not known; did you mean 'net'?"),
    ("results/tiny/models/digits/net/c/seed0.pt", "recipe: 'c' is not known; did you mean 'ce'?"),
    ("results/tiny/scores/digits/net/ce/seed3/msp.h5", "seed: '3' is not known"),
    ("results/tiny/tables/frist.csv", "paper: 'frist' is not known; did you mean 'first'?"),
    ("results/tiny/tables/frist.manifest.json", "paper: 'frist' is not known; did you mean 'first'?"),
    ("results/tiny/figures/sceond/roc.svg", "paper: 'sceond' is not known; did you mean 'second'?"),
    ("resources/archives/dtd-r1.0.tar.gz", "raw file: 'dtd-r1.0.tar.gz' is not known; did you mean 'dtd-r1.0.1.tar"),
]


def test_what_there_is_may_be_asked_for():
    check(PLAN, GOOD)


@pytest.mark.parametrize(("target", "message"), BAD, ids=[target for target, _ in BAD])
def test_a_mistyped_target_is_refused_and_the_nearest_named(target, message):
    with pytest.raises(OODError) as said:
        check(PLAN, [target])
    assert message in str(said.value) and "\n" not in str(said.value)


def changed(**ood):
    config = copy.deepcopy(TINY)
    config["experiments"] = [{**config["experiments"][0], "ood": ood}]
    return config


@pytest.mark.parametrize(("config", "message"), [
    (changed(id=["faces"]), "experiments[0].ood.id: tables call the ID set's own rows so"),
    (changed(average=["faces"]), "experiments[0].ood.average: tables call means over sets so"),
    (changed(all=["faces"]), "experiments[0].ood.all: tables call the mean over all sets so"),
    (changed(far=["faces"]) | {"limit": {"images": 1}}, "'faces' has one test image (limit.images: 1)"),
    (changed(far=["one"]) | {"datasets": {"one": {"of": "faces", "label": "One", "sample": {"n": 1}}}},
     "'one' has one test image (dataset 'one', key sample.n: 1)"),
    (changed(far=["mine"]) | {"datasets": {"mine": {
        "reader": "images", "options": {"files": "x"}, "splits": {"test": {}}, "counts": {"test": 1}}}},
     "'mine' has one test image (dataset 'mine', key counts.test: 1)"),
])
def test_names_and_sets_that_no_table_can_hold_are_refused(config, message):
    with pytest.raises(OODError) as said:
        read_plan(config, ROOT, {})
    assert message in str(said.value) and "\n" not in str(said.value)


def test_snakemake_ends_with_that_line(tmp_path):
    """Before it has built its graph; jobs, which ask for files, are not asked again."""
    write(tmp_path / "c.yaml")
    words = ["--snakefile", str(ROOT / "Snakefile"), "--dry-run", "--configfile", "c.yaml"]
    done = snakemake(tmp_path, "results/tiny/data/face.test.h5", *words)
    assert done.returncode == 1 and "Traceback" not in done.stdout
    assert done.stdout.splitlines()[-1].startswith(
        "config: target results/tiny/data/face.test.h5: dataset: 'face' is not known; did you mean 'faces'?")
