"""A run of seconds for tests of the helpers: two papers, two small networks, a few steps."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

from tests.checkout import ROOT, snakemake

_RECIPE: dict[str, Any] = {
    "name": "ce", "label": "CE", "method": "cross_entropy",
    "normalise": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
    "training": {"epochs": 2, "batch_size": 16, "lr": 0.05, "schedule": {"name": "cosine"}}}
TINY: dict[str, Any] = {
    "variant": "tiny", "small": True, "seeds": [0], "device": "cpu", "threads": 1, "limit": {"images": 48},
    "features": {"batch_size": 64, "together": True},
    "networks": [{"name": "net", "model": "resnet_cifar", "options": {"blocks": [1, 1, 1, 1], "width": 8}}],
    "recipes": [_RECIPE, {**_RECIPE, "name": "oe", "label": "OE", "method": "outlier_exposure",
                          "outliers": {"dataset": "pool", "batch_size": 16}}],
    "scores": [{"name": "msp"}, {"name": "energy"}],
    "experiments": [
        {"paper": "first", "id": "digits", "networks": ["net"], "recipes": ["ce"], "scores": ["msp", "energy"],
         "ood": {"far": ["faces"]}},
        {"paper": "second", "id": "digits", "networks": ["net"], "recipes": ["ce", "oe"], "scores": ["msp"],
         "ood": {"far": ["faces", "blobs"]}}]}


def write(path: Path, **changes: Any) -> Path:
    """The configuration with other values, as a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({**copy.deepcopy(TINY), **changes}, sort_keys=False))
    return path


def run(folder: Path, *words: str, dry: bool = False):
    """The workflow of this checkout with results in ``folder``, whose config.yaml is the configuration."""
    extra = ["--dry-run"] if dry else []
    done = snakemake(folder, *words, *extra, "--cores", "2", "--snakefile", str(ROOT / "Snakefile"),
                     "--configfile", "config.yaml")
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout
