"""Optional weights: what lacks them is left out of the plan, with what starts from it, and is said."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import yaml

from tests.checkout import ROOT
from workflow_scripts.core.errors import OODError
from workflow_scripts.data.archives import drive
from workflow_scripts.wiring import data, pictures, reports
from workflow_scripts.wiring.targets import results_of
from workflow_scripts.work.expand import read_plan
from workflow_scripts.work.missing import missing_data

RAW = yaml.safe_load((ROOT / "config" / "npos.yaml").read_text())
# README of deeplearning-wisc/npos at 583c06d
ADDRESSES = {"CIFAR10.pt": "1O-75ro2iwg_LFhPoyYkXrPDOmdWxIX75", "CIFAR100.pt": "1Vd5eoUHmQtlsfMxcH3evFcUiYYdyqvNU",
             "ImageNet100.pt": "1WBVZHjChC2dFWNoWbkb9mag5d66-ia86",
             "CLIP_ImageNet100.pt": "1S-6d7DaSGPwDMcmgoPXOx06yLEi0CrR1",
             "CLIP_ImageNet1k.pt": "1nleU7JL12NSvOLcWdOIN9XSkWFSijhXc"}


def plan(tmp_path, **changes):
    """The plan where the data root and downloads are folders of the test."""
    (tmp_path / "data").mkdir(exist_ok=True)
    return read_plan({**RAW, "resources": str(tmp_path / "resources"), "data_root": str(tmp_path / "data"), **changes},
                     ROOT, {})


def place(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def of_released(found) -> set[str]:
    return {run.id for run in found.runs.values() if run.recipe.name.endswith("-released")}


def test_a_papers_target_needs_none_of_the_released_files(tmp_path):
    found = plan(tmp_path)
    assert not of_released(found) and len(found.left_out) == 6
    recipes = [run.recipe for run in found.runs.values() if run.recipe.checkpoint]
    assert recipes and not missing_data(found, [], recipes)  # those that are left have addresses
    for paper in ("npos", "npos_ablation", "npos_clip"):
        assert results_of(found, paper) and found.reported(paper)
    assert {found.sources[name].urls[0] for name in ADDRESSES} == {f"gdrive:{id}" for id in ADDRESSES.values()}
    assert {drive.direct(found.sources[name].urls[0]).split("?")[0] for name in ADDRESSES} == {
        "https://drive.usercontent.google.com/download"}
    assert {path.rsplit("/", 1)[1] for path in data.optional_weights(found)} == {*ADDRESSES}


@pytest.mark.parametrize("folder", ["data/checkpoints/npos", "resources/archives"])
def test_a_file_that_is_there_is_read(tmp_path, folder):
    place(tmp_path / folder / "CIFAR10.pt")
    found = plan(tmp_path)
    assert of_released(found) == {"cifar10"} and len(found.left_out) == 4
    assert ("CIFAR10.pt" in data.optional_weights(found)[0]) == folder.startswith("resources")


def test_what_is_left_out_is_said(tmp_path):
    found = plan(tmp_path)
    said = [str(one) for one in found.left_out]
    assert said[0] == (
        "recipe 'npos-released' of resnet18 on cifar10: checkpoints/npos/CIFAR10.pt is not below the data root; the "
        f"target optional_weights downloads it from gdrive:{ADDRESSES['CIFAR10.pt']}")
    papers = json.loads(reports.report_section(found))["papers"]
    about = {paper["name"]: paper["about"] for paper in papers}
    assert about["npos"].endswith("Left out, since the weights are not there: NPOS, released weights (cifar10), NPOS, "
                                  "released weights [npos.B7] (cifar10), NPOS, released weights (cifar100), NPOS, "
                                  "released weights (imagenet100_squash).")
    assert "Left out" not in about["npos_ablation"]
    assert len(plan(tmp_path, only={"papers": ["npos_clip"]}).left_out) == 2


def test_alone_it_is_an_error_that_names_the_file(tmp_path):
    with pytest.raises(OODError, match=r"(?s)nothing is left but what lacks optional weights.*npos/CIFAR10.pt"):
        plan(tmp_path, only={"recipes": ["npos-released"], "ids": ["cifar10"]})
    with pytest.raises(OODError, match="only.recipes: 'npos-relesed'.*did you mean 'npos-released'"):
        plan(tmp_path, only={"recipes": ["npos-relesed"]})


def test_what_starts_from_it_is_left_out_too(tmp_path):
    child = {**next(r for r in RAW["recipes"] if r["name"] == "npos"), "name": "child", "parent": "npos-released",
             "initialisation": None}
    recipes = [*RAW["recipes"], child]
    experiments = [{**e, "recipes": ["npos", "child"]} for e in RAW["experiments"][:1]]
    about = [{"name": "npos", "title": "t", "pictures": [{"picture": "synthesised_outliers", "recipes": ["child"]}]}]
    given = {"recipes": recipes, "experiments": experiments, "papers": about}
    found = plan(tmp_path, **given)
    assert {run.path_name for run in found.runs.values()} == {"npos"}
    assert [(one.key.recipe, one.weights.name) for one in found.left_out] == [("child", "npos-released")]
    assert not pictures.of_paper(found, "npos")
    place(tmp_path / "data/checkpoints/npos/CIFAR10.pt")
    found = plan(tmp_path, **given)
    assert {run.path_name for run in found.runs.values()} == {"npos", "child", "npos-released"} and not found.left_out
    assert len(pictures.of_paper(found, "npos")) == 1
    assert pictures.inputs(found, SimpleNamespace(paper="npos", picture="synthesised_outliers"))


def test_weights_that_are_not_optional_are_asked_for(tmp_path):
    recipes = [{**r, "checkpoint": {**r["checkpoint"], "optional": False, "url": ""}}
               if r["name"] == "npos-released" else r for r in RAW["recipes"]]
    found = plan(tmp_path, recipes=recipes)
    wanted = [run.recipe for run in found.runs.values() if run.recipe.name == "npos-released"]
    lines = missing_data(found, [], wanted)
    assert len(lines) == 3 and "checkpoints/npos/CIFAR10.pt expected below the data root" in lines[0]
