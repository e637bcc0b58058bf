"""DFB in the default run: its pseudo-masks find the digits, and its table has the three kinds of rows."""

from __future__ import annotations

import csv

import h5py
import numpy as np
import pytest
import yaml

from tests.checkout import ROOT
from workflow_scripts.networks import checkpoint
from workflow_scripts.work.expand import read_plan
from workflow_scripts.work.fusion import columns

PLAN = read_plan(yaml.safe_load((ROOT / "config.yaml").read_text()), ROOT, {})
RUNS = [run for run in PLAN.runs.values() if run.recipe.masks]


def digits(pixels: np.ndarray) -> np.ndarray:
    """Where the bright stroke is: above the middle of an image's range. (N, H, W, 3) -> (N, H, W) bool."""
    grey = pixels.astype(float).mean(3)
    low, high = grey.min((1, 2), keepdims=True), grey.max((1, 2), keepdims=True)
    return grey > (low + high) / 2


def iou(found: np.ndarray, true: np.ndarray) -> float:
    """Mean over images of intersection over union. (N, H, W) bool, or (H, W) for the same in each."""
    found = np.broadcast_to(found, true.shape)
    return float(((found & true).sum((1, 2)) / np.maximum((found | true).sum((1, 2)), 1)).mean())


def centre_box(side: int, height: float, width: float) -> np.ndarray:
    """A box in the middle of a square image; a pixel belongs to it by its centre."""
    place = np.abs(np.arange(side) - (side - 1) / 2)
    return (place[:, None] < height / 2) & (place[None] < width / 2)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"seed{run.seed}")
def test_pseudo_masks_find_the_digits(default_run, run):
    """Better than a centre box of their own mean area; the best centre box of any size is printed beside them."""
    results = default_run / "results" / PLAN.config.variant
    with h5py.File(results / "data" / f"{run.id}.train.h5") as file:
        true, labels = digits(file["images"][:]), file["labels"][:]
    with h5py.File(results / "masks" / run.id / run.network.name / run.path_name / f"seed{run.seed}.h5") as file:
        masks = file["masks"][:]
        assert np.array_equal(file["classes"][:], labels)
    assert (masks[masks > 0] == np.broadcast_to(labels[:, None, None] + 1, masks.shape)[masks > 0]).all()
    side = masks.shape[1]
    length = ((masks > 0).mean() * side * side) ** 0.5
    own, box = iou(masks > 0, true), iou(centre_box(side, length, length), true)
    best = max(iou(centre_box(side, h, w), true) for h in range(4, side + 1, 2) for w in range(4, side + 1, 2))
    print(f"pseudo-masks {own:.3f}, centre box of their area {box:.3f}, best centre box {best:.3f}")
    assert own > box


def test_the_trainings_are_healthy(default_run):
    """Accuracy of the classifier on its train images, and of the dense network on ID test images."""
    results = default_run / "results" / PLAN.config.variant
    for run in RUNS:
        path = results / "models" / run.id / run.network.name / run.classifier / f"seed{run.seed}.pt"
        assert checkpoint.read(path)["about"]["history"][-1]["accuracy"] > 0.95
    rows = list(csv.DictReader((results / "tables" / "dfb.csv").open()))
    accuracy = [float(r["mean"]) for r in rows if r["metric"] == "accuracy"]
    assert accuracy and min(accuracy) > 0.94


def test_each_score_stands_alone_and_with_the_background(default_run):
    rows = list(csv.DictReader((default_run / "results" / PLAN.config.variant / "tables" / "dfb.csv").open()))
    found = {r["score"] for r in rows if r["metric"] == "auroc"}
    experiment = PLAN.experiments("dfb")[0]
    assert found == set(columns(experiment)) and "background" in found
    assert {f"{s}_fused" for s in experiment.scores if s != "background"} < found


def test_the_pictures(default_run):
    folder = default_run / "results" / PLAN.config.variant / "figures" / "dfb"
    for name in ("foreground_background", "score_scatter"):
        assert (folder / f"{name}.svg").stat().st_size > 1000 and (folder / f"{name}.json").is_file()
