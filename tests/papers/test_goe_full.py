"""config/goe.yaml at full architecture, each stage once on random images in the official layouts."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.checkout import ROOT, copy, snakemake
from tests.papers.test_himplos_config import random_cifar
from workflow_scripts.networks import checkpoint
from workflow_scripts.work.expand import read_plan

FULL = yaml.safe_load((ROOT / "config" / "goe.yaml").read_text())
RECORDS = 400  # of the made-up 80 Million Tiny Images
IMAGES = 30  # the fewest that leave G-OE a batch of more than k = 20
SETS = {"texture": 0, "svhn": 0, "tin": 8, "lsun": 8, "places365": 8,  # images that belong to an ID class
        "cifar10": 8, "cifar100": 8}  # of the other CIFAR


def random_data(root: Path) -> None:
    """Small files in the official layouts of all that the configuration reads."""
    rng = np.random.default_rng(0)
    for name, classes, labels, files in (("cifar10", 10, 1, ("data_batch_1.bin", "test_batch.bin")),
                                         ("cifar100", 100, 2, ("train.bin", "test.bin"))):
        (root / name).mkdir(parents=True)
        for file in files:
            (root / name / file).write_bytes(random_cifar(rng, 400, classes, labels))
    (root / "tiny_images").mkdir()
    (root / "tiny_images" / "tiny_images.bin").write_bytes(rng.integers(0, 256, (RECORDS, 3072), np.uint8).tobytes())
    for name, like in SETS.items():
        (root / "sc-ood" / "images" / name).mkdir(parents=True)
        for i in range(50):
            Image.fromarray(rng.integers(0, 256, (40, 36, 3), dtype=np.uint8)).save(
                root / "sc-ood" / "images" / name / f"{i}.png")
        for benchmark, first in (("cifar10", 0), ("cifar100", 20)):  # other images are like ID
            folder = root / "sc-ood" / "imglist" / f"benchmark_{benchmark}"
            folder.mkdir(parents=True, exist_ok=True)
            lines = [f"{name}/{i}.png {{'label': {i % 3}, 'sc_label': {2 if first <= i < first + like else -1}}}"
                     for i in range(50)]
            (folder / f"test_{name}.txt").write_text("\n".join(lines) + "\n")


def limited() -> dict:
    """The configuration with each network and each method once, a choice of k, and its evaluation as released too."""
    tiny = yaml.safe_load((ROOT / "config" / "datasets.yaml").read_text())["tiny_images_all"]
    recipes = json.loads(json.dumps(FULL["recipes"]).replace('"tiny_images_all"', '"tiny_images_part"'))
    goe = next(r for r in recipes if r["name"] == "goe" and r["where"] == {"id": ["cifar10"]})
    first, second = FULL["experiments"]
    own = {"seeds": 1, "scores": ["msp"]}
    return {
        **FULL, "variant": "limited", "limit": {"steps": 1, "images": IMAGES}, "device": "cpu", "threads": 1,
        "features": {"batch_size": 32, "together": True}, "fidelity": {"released": ["goe.2c", "goe.2g-1", "goe.2g-8"]},
        "datasets": {"tiny_images_part": {**tiny, "options": {"records": RECORDS}, "hold_out": 40,
                                          "counts": {"train": RECORDS - 40, "val": 40}}},
        "recipes": [*recipes, {**goe, "name": "goe-k5", "options": {**goe["options"], "k": 5}},
                    {**goe, "name": "goe-released", "released": ["goe.2g-4"]},
                    {"name": "goe-chosen", "label": "G-OE, chosen", "select_best": {"among": ["goe", "goe-k5"]},
                     "where": {"id": ["cifar10"]}}],
        "experiments": [
            {**first, "networks": ["wrn40-2"], "recipes": ["goe"], "seeds": 1},
            {**first, **own, "networks": ["wrn40-2"],
             "recipes": ["baseline", "oe", "energy-oe", "goe-top", "goe-chosen", "goe-released"]},
            {**first, **own, "networks": ["densenet100", "resnet34"], "recipes": ["goe"]},
            {**second, **own, "networks": ["wrn40-2"], "recipes": ["goe"]}]}


@pytest.mark.slow
def test_every_full_size_stage_once_on_random_images(tmp_path):
    folder, raw = copy(tmp_path / "checkout"), limited()
    random_data(tmp_path / "data")
    (folder / "limited.yaml").write_text(yaml.safe_dump(raw))
    done = snakemake(folder, "--cores", "2", "--configfile", "limited.yaml", OOD_DATA=str(tmp_path / "data"))
    assert done.returncode == 0, done.stdout[-6000:]
    results = folder / "results" / "limited"
    plan = read_plan(raw, ROOT, {})
    rows = list(csv.DictReader((results / "tables" / "goe.csv").open()))
    values = {(r["id"], r["network"], r["recipe"], r["score"], r["dataset"], r["metric"]): r for r in rows}
    assert {(*key[:3], score) for key, run in plan.runs.items() for score in run.scores} == {
        key[:4] for key in values if key[5] == "auroc"}
    assert all(0 <= float(r["mean"]) <= 1 for r in rows if r["metric"] in ("auroc", "auroc@scood", "fpr95@goe"))

    about = checkpoint.read(results / "models/cifar10/wrn40-2/goe/seed0.pt")["about"]
    assert len(about["history"]) == 1 and "validation" in about["history"][0]

    # SC-OOD: the reference protocol has the ID-like images on the ID side, the released lists stand beside
    key = ("cifar10", "wrn40-2", "goe", "msp")
    sizes = {m: [int(values[*key, "scood_cifar10_tin", m][n]) for n in ("n_id", "n_ood")]
             for m in ("auroc", "auroc@scood")}
    assert sizes["auroc@scood"] == [sizes["auroc"][0] + 8, sizes["auroc"][1]] and sizes["auroc"][1] == IMAGES
    whole = {m: [int(values[*key, "cifar100", m][n]) for n in ("n_id", "n_ood")] for m in ("auroc@goe", "auroc@scood")}
    assert whole["auroc@scood"] == [whole["auroc@goe"][0] + 8, IMAGES] and whole["auroc@goe"][1] == 200
    assert values[*key, "scood_cifar100_tin", "auroc"]["group"] == "far+2g-1"
    assert values[*key, "scood_cifar100_tin_squash", "auroc"]["group"] == "far+2c+2g-1"

    # the mean over the release's eight sets, with its lists and its geometry of 2024
    squashed = [f"scood_cifar100_{name}_squash" for name in ("texture", "svhn", "tin", "lsun", "places365")]
    eight = [("cifar100", "near"), *((name, "far+2c+2g-1") for name in (*squashed, "blobs_10k", "gaussian_10k"))]
    single = {(r["dataset"], r["group"]): float(r["mean"]) for r in rows
              if (r["id"], r["network"], r["recipe"], r["score"]) == key and r["metric"] == "fpr95@goe"}
    assert single["all+2c+2g-1", "average"] == pytest.approx(sum(single[name] for name in eight) / 8)
    text = (results / "tables" / "goe.md").read_text()
    assert all(f"| goe.{bug} |" in text for bug in ("2c", "2c, goe.2g-1", "2g-1", "2g-4", "2g-8"))
    assert text.index("wrn40-2, counted as goe") < text.index("counted as scood")

    # the choice is the better of its two candidates
    [choice] = [list(csv.DictReader(path.open())) for path in results.glob("choice/**/seed0.csv")]
    assert [r["recipe"] for r in choice] == ["goe", "goe-k5"] and {r["n_outliers"] for r in choice} == {str(IMAGES)}
    chosen = max(choice, key=lambda r: float(r["auroc"]))["recipe"]
    models = results / "models" / "cifar10" / "wrn40-2"
    assert (models / "goe-chosen/seed0.pt").read_bytes() == (models / f"{chosen}/seed0.pt").read_bytes()

    page = (results / "report.html").read_text()
    assert "Reliability diagram" in page and "Corrected and as released" in page
    names = {entry["name"] for entry in json.loads((results / "cards.json").read_text())["cards"]}
    assert {"tiny_images_part", "blobs_10k", "scood_cifar10_lsun_id"} <= names
