"""Digits as an ID set with validation images of its own, OOD sets and OOD validation images, in a user's folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml
from sklearn.datasets import load_digits

ID = (0, 1, 2, 3, 4)
PARTS = {"id_train": (0, 60), "id_test": (60, 110), "id_val": (110, 150)}
"""Places of the images of a digit in each part."""


def write(folder: Path, scores: list[str], **tuning: object) -> Path:
    """Arrays and a configuration that trains a tiny network on five digits and tunes ``scores``. -> the file."""
    digits = load_digits()
    pixels = (digits.images * 15).astype(np.uint8)
    of = [np.flatnonzero(digits.target == digit) for digit in range(10)]
    for name, (start, end) in PARTS.items():
        index = np.concatenate([of[digit][start:end] for digit in ID])
        np.savez(folder / f"{name}.npz", images=pixels[index], labels=digits.target[index])
    for name, taken in {"ood_test": (7, 8, 9), "ood_val": (5, 6)}.items():
        np.savez(folder / f"{name}.npz", images=pixels[np.concatenate([of[digit][:60] for digit in taken])])
    row = {"label": "x", "about": "x", "licence": "CC BY 4.0", "reader": "arrays", "geometry": "squash32"}
    labelled = {**row, "label": "Five digits", "options": {"labels": "labels"}, "classes": len(ID)}
    config = {
        "variant": "tuned", "seeds": [0], "device": "cpu", "threads": 1, "features": {"together": True},
        "scores": [{"name": name} for name in scores],
        "datasets": {
            "five": {**labelled, "splits": {"train": {"files": "./id_train.npz"}, "test": {"files": "./id_test.npz"}}},
            "five_val": {**labelled, "splits": {"test": {"files": "./id_val.npz"}}},
            **{name: {**row, "splits": {"test": {"files": f"./{name}.npz"}}} for name in ("ood_test", "ood_val")}},
        "networks": [{"name": "tiny", "model": "resnet_cifar", "options": {"blocks": [1, 1, 1, 1], "width": 8}}],
        "recipes": [{"name": "plain", "label": "Plain", "method": "cross_entropy", "normalise": "per_image",
                     "training": {"epochs": 8, "batch_size": 30, "lr": 0.05, "schedule": {"name": "cosine"}}}],
        "experiments": [{"paper": "tuned", "id": "five", "networks": ["tiny"], "recipes": ["plain"], "scores": scores,
                         "ood": {"far": ["ood_test"]}, "tuning": {"id": "five_val", "ood": ["ood_val"], **tuning}}]}
    (folder / "tuned.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return folder / "tuned.yaml"
