"""A run as its manifests hold it: ``tables/PAPER.manifest.json``, one for each paper, the table beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflow_scripts.core.digest import ROOT
from workflow_scripts.core.errors import OODError
from workflow_scripts.work.expand import read_plan
from workflow_scripts.work.plan import Plan

KEYS = ("config", "code", "git", "packages", "inputs", "seeds", "hardware")
SUFFIX = ".manifest.json"
Manifest = dict[str, Any]


@dataclass(frozen=True)
class Published:
    """The papers of one run."""

    manifests: dict[Path, Manifest]
    """File -> content, in the order of the configuration's papers."""
    config: dict[str, Any]
    """What a configuration file of these papers holds, without the places of the machine it ran on."""
    plan: Plan

    @property
    def name(self) -> str:
        """The paper, or the variant where there are several."""
        return self.plan.papers[0] if len(self.manifests) == 1 else self.plan.config.variant

    @property
    def inputs(self) -> dict[str, str]:
        """Raw files and networks -> sha256; what a package brings, with the package's version."""
        return {entry["path"]: entry["sha256"] for one in self.manifests.values() for entry in one["inputs"]}


def read(path: Path) -> Manifest:
    """A manifest.

    Raises:
        OODError: no such file, or it is none of this version.
    """
    if not path.is_file():
        raise OODError(f"there is no manifest {path}; a run writes results/VARIANT/tables/PAPER{SUFFIX}")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise OODError(f"{path}: not JSON ({error}); expected a manifest, PAPER{SUFFIX}") from None
    lacking = [key for key in KEYS if not isinstance(manifest, dict) or key not in manifest]
    if lacking:
        raise OODError(f"{path}: no manifest, or one of another version of this project: it has no "
                       f"{', '.join(lacking)}")
    return manifest


def published(paths: Sequence[Path]) -> Published:
    """The run behind one manifest, or behind those of several of its papers.

    Raises:
        OODError: one of them cannot be read; they are of different configurations; this version does not know theirs.
    """
    found = {path: read(path) for path in paths}
    first, *others = found.items()
    whole = _without_experiments(first[1])
    for path, manifest in others:
        if differing := [key for key, value in _without_experiments(manifest).items() if whole.get(key) != value]:
            raise OODError(f"{path}: of another configuration than {first[0]} ({', '.join(differing)} differ); run the "
                           "workflow again, so that all papers are of one")
    order = [paper["name"] for paper in whole.get("papers", ())]
    found = dict(sorted(found.items(), key=lambda item: _place(item[1], order)))
    experiments = [experiment for manifest in found.values() for experiment in manifest["config"]["experiments"]]
    config, plan = _configuration({**whole, "experiments": experiments}, *first)
    return Published(found, config, plan)


def _without_experiments(manifest: Manifest) -> dict[str, Any]:
    return {key: value for key, value in manifest["config"].items() if key != "experiments"}


def _place(manifest: Manifest, order: list[str]) -> tuple[int, str]:
    """Of a manifest's paper among the configuration's papers, those that it does not describe last."""
    name = manifest["config"]["experiments"][0]["paper"]
    return (order.index(name) if name in order else len(order), name)


def _configuration(whole: dict[str, Any], path: Path, manifest: Manifest) -> tuple[dict[str, Any], Plan]:
    """The configuration as a file may hold it, without the places of the machine it ran on, and its plan.

    Raises:
        OODError: this version does not know it; says which revision does.
    """
    config = {key: value for key, value in whole.items() if key not in ("include", "data_root")}
    config["resources"] = "resources"
    for recipe in config.get("recipes", ()):
        if recipe.get("select_best"):  # says nothing but this
            for key in set(recipe) - {"name", "label", "select_best", "where"}:
                del recipe[key]
    try:
        return config, read_plan(config, ROOT)
    except OODError as error:
        raise OODError(f"{path}: its configuration is of another version of this project (revision "
                       f"{manifest['git'].get('revision') or 'not known'}): {str(error).splitlines()[0]}") from None
