"""The short CIFAR run on the papers' data, where OOD_DATA names real samples."""

from __future__ import annotations

import csv
import json

import pytest
import yaml

from tests.checkout import copy, snakemake


@pytest.mark.data
def test_cifar_on_images_that_are_there(tmp_path):
    folder = copy(tmp_path)
    raw = yaml.safe_load((folder / "config" / "cifar.yaml").read_text())
    raw.update(variant="cifar-test", limit={"images": 400})
    raw["experiments"] = [e for e in raw["experiments"] if e["paper"] != "bgresample"]
    raw["papers"] = [p for p in raw["papers"] if p["name"] != "bgresample"]
    (folder / "short.yaml").write_text(yaml.safe_dump(raw))
    done = snakemake(folder, "--cores", "2", "--configfile", "short.yaml")
    assert done.returncode == 0, done.stdout[-4000:]
    rows = list(csv.DictReader((folder / "results/cifar-test/tables/posthoc.csv").open()))
    found = {(r["score"], r["dataset"]): (r["n_id"], r["n_ood"], float(r["mean"]))
             for r in rows if r["metric"] == "auroc"}
    himplos = list(csv.DictReader((folder / "results/cifar-test/tables/himplos.csv").open()))
    assert len({r["score"] for r in himplos}) == len(raw["experiments"][1]["scores"]) > 20
    assert found["energy", "cifar100"][:2] == ("400", "400")
    assert found["energy", "svhn_sample"][1] == "40" and found["energy", "textures_sample"][1] == "150"
    assert found["energy", "places_sample"][1] == "400"
    assert all(0 < value < 1 for _, _, value in found.values())
    assert "Nothing to be done" in snakemake(folder, "--cores", "2", "--configfile", "short.yaml").stdout


@pytest.mark.data
@pytest.mark.slow
def test_background_resampling_on_images_that_are_there(tmp_path):
    """CIFAR-10 against Tiny ImageNet: learned weights find the images that the pretrained network is sure of."""
    folder = copy(tmp_path)
    raw = yaml.safe_load((folder / "config" / "cifar.yaml").read_text())
    raw.update(variant="cifar-test", limit={"images": 2400})
    raw["experiments"] = [e for e in raw["experiments"] if e["paper"] == "bgresample"]
    raw["papers"] = [p for p in raw["papers"] if p["name"] == "bgresample"]
    (folder / "short.yaml").write_text(yaml.safe_dump(raw))
    done = snakemake(folder, "--cores", "2", "bgresample", "--configfile", "short.yaml")
    assert done.returncode == 0, done.stdout[-4000:]
    results = folder / "results" / "cifar-test"
    facts = json.loads((results / "figures" / "bgresample" / "background_weights.json").read_text())
    tenths = facts["msp_of_tenths"]
    assert facts["images"] == 2400 and tenths["top"] - tenths["bottom"] > tenths["half_interval"]
    difference = facts["kl_learned_minus_random"]
    assert difference["mean"] > difference["half_interval"]
    rows = list(csv.DictReader((results / "tables" / "bgresample.csv").open()))
    assert {r["recipe"] for r in rows} == {"pretrain", "background-full", "random-10", "learned-10"}


@pytest.mark.data
def test_dfb_on_images_that_are_there(tmp_path):
    """Each stage of the small configuration, and the three columns of its table."""
    folder = copy(tmp_path)
    raw = yaml.safe_load((folder / "config" / "dfb_small.yaml").read_text())
    raw.update(variant="dfb-test", limit={"images": 200, "steps": 4}, seeds=[0])
    scores = ["background", "energy", "odin"]
    raw["experiments"] = [{**raw["experiments"][0], "scores": scores}]
    raw["recipes"] = [{**r, "validation": {"count": 40}} if "masks" in r else r for r in raw["recipes"]]
    (folder / "short.yaml").write_text(yaml.safe_dump(raw))
    done = snakemake(folder, "--cores", "2", "--configfile", "short.yaml")
    assert done.returncode == 0, done.stdout[-4000:]
    rows = list(csv.DictReader((folder / "results/dfb-test/tables/dfb.csv").open()))
    found = {(r["score"], r["dataset"]): int(r["n_ood"]) for r in rows if r["metric"] == "auroc" and r["n_ood"]}
    assert {score for score, _ in found} == {*scores, "energy_fused", "odin_fused"}
    assert {found["energy_fused", name] for name in ("cifar100", "svhn_crops", "places_sample")} == {200}
    assert found["background", "textures_sample"] == 150


def test_a_folder_without_the_data_is_refused_before_the_first_job(tmp_path):
    folder = copy(tmp_path)
    (folder / "empty").mkdir()
    done = snakemake(folder, "--cores", "1", "--configfile", "config/cifar.yaml", "--config", "offline=true",
                     OOD_DATA=str(folder / "empty"))
    assert done.returncode != 0 and "Traceback" not in done.stdout
    assert "missing: dataset 'svhn_sample' (test): svhn/svhn_test_color.tar expected below" in done.stdout
    for name in ("cifar-10-binary.tar.gz", "cifar-100-binary.tar.gz", "dtd-r1.0.1.tar.gz"):
        assert f"resources/archives/{name}" in done.stdout
    assert not list((folder / "results").glob("cifar-short/data/*"))
