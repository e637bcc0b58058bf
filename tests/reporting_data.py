"""A made-up run for the tests of tables, figures and the page: score files, metrics files and image stores, small."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import h5py
import numpy as np

from workflow_scripts.metrics import ood as metrics

GROUPS = {"near": ["digits89"], "far": ["faces", "brick", "coffee", "gaussian", "uniform"]}
# How far each set lies below ID, in ID standard deviations; negative = above ID, so below chance.
DISTANCE = {"digits89": 2.2, "faces": 1.1, "brick": -0.3, "coffee": 1.4, "gaussian": 3.6, "uniform": 3.2}
SCORES = {"energy": 1.0, "msp": 0.8, "knn": 1.3}
RECIPES = {"pretrain": ("Cross-entropy", 1.0), "oe": ("Outlier exposure", 1.7)}


def write_run(folder: Path, recipe: str, seed: int, groups: dict = GROUPS, n: int = 200) -> dict:
    """Score and metrics files of one trained network; returns its config entry for the figures stage."""
    rng = np.random.default_rng([seed, len(recipe)])
    label, strength = RECIPES[recipe]
    base, files, rows = folder / recipe / f"seed{seed}", {}, []
    base.mkdir(parents=True)
    for score, sharp in SCORES.items():
        id_scores = rng.normal(10, 1, n)
        files[score] = str(base / f"{score}.h5")
        with h5py.File(files[score], "w") as file:
            file["digits.test"] = id_scores
            for group, names in groups.items():
                for name in names:
                    ood = rng.normal(10 - DISTANCE[name] * sharp * (strength if DISTANCE[name] > 0 else 1), 1, n)
                    file[f"{name}.test"] = ood
                    curve = metrics.curve(id_scores, ood)
                    auroc = metrics.auroc(curve)
                    for metric, value in {"auroc": auroc, "fpr95": metrics.fpr95(curve),
                                          "fpr95_ood": metrics.fpr95(curve.flipped()),
                                          "aupr_in": auroc * 0.98, "aupr_out": auroc * 0.97}.items():
                        rows.append([score, name, group, metric, repr(float(value)), n, n])
        accuracy = 0.975 + 0.01 * seed
        rows += [[score, "digits", "id", "accuracy", repr(accuracy), n, 0],
                 [score, "digits", "id", "aurc", repr(0.002 * sharp), n, 0]]
    with open(base / "metrics.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["score", "dataset", "group", "metric", "value", "n_id", "n_ood"], *rows])
    return {"id": "digits", "network": "resnet_small", "recipe": recipe, "label": label, "seed": seed,
            "scores": files, "groups": groups, "metrics": str(base / "metrics.csv")}


def write_paper(folder: Path, seeds: tuple[int, ...] = (0, 1), recipes: tuple[str, ...] = ("pretrain", "oe")) -> dict:
    """The config of a paper with its files."""
    return {"paper": "posthoc", "title": "The post-hoc scores: scores on one small network",
            "runs": [write_run(folder, recipe, seed) for recipe in recipes for seed in seeds],
            "names": {"energy": "Energy", "msp": "MSP", "knn": "KNN", "digits": "Digits 0-7", "digits89": "Digits 8-9",
                      "resnet_small": "ResNet, width 16", "faces": "Faces", "brick": "Brick", "coffee": "Coffee",
                      "gaussian": "Gaussian noise", "uniform": "Uniform noise"}}


def write_store(path: Path, key: str = "images", n: int = 40) -> str:
    """An image store as the datasets rule writes it."""
    rng = np.random.default_rng(n)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        if key == "images":
            ramp = np.linspace(0, 255, 32)[None, :, None, None] * np.ones((n, 1, 32, 3))
            file["images"] = (ramp * rng.uniform(0.3, 1, (n, 1, 1, 3))).astype(np.uint8)
            file["labels"] = np.arange(n) % 4
            file.attrs["classes"] = json.dumps(["zero", "one", "two", "three"])
        else:
            file["inputs"] = rng.normal(0, 0.5, (n, 3, 32, 32)).astype(np.float32)
            file["labels"] = np.full(n, -1)
            file.attrs["classes"] = "[]"
        file.attrs["sources"] = json.dumps({"scikit-learn": "1.9.1"} if key == "images" else {})
        file.attrs["definition"] = "{}"
    return str(path)


MANIFEST = {
    "config": {"variant": "default"}, "code": {
        "tables": {"workflow_scripts/stages/make_tables.py": "0123456789ab"},
        "scores.x": {f"workflow_scripts/scores/relative_mahalanobis_of_several_layers_{i}.py": "ba9876543210"
                     for i in range(30)}},
    "git": {"revision": "c7a61d0", "dirty": False}, "packages": {"numpy": "2.4.6", "torch": "2.15.0"},
    "hardware": {"cpu": "2 cores", "gpu": None}, "seeds": [0, 1],
    "inputs": [{"path": "results/default/models/digits/resnet_small/pretrain/seed0.pt", "sha256": "ab" * 32}],
    "stages": [{"job": "pretrain digits seed 0", "seconds": 9.4, "peak_mb": 512.0},
               {"job": "tables posthoc", "seconds": None, "peak_mb": None}],
}
