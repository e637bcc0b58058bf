"""Where the files of a plan are: results below ``results``/variant, raw files below its ``resources``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from workflow_scripts.work.plan import Plan, Taken, Trained
from workflow_scripts.work.starts import Start

Wildcards = Any  # Snakemake's; attributes by name
CHECKS = "results/published_checks"
"""The folder of published numbers that are computed again, whatever the configuration."""


def root(plan: Plan) -> str:
    """The folder of all results of a configuration."""
    return f"results/{plan.config.variant}"


def archive(plan: Plan, name: str) -> str:
    """A raw file as it was downloaded."""
    return f"{plan.config.resources}/archives/{name}"


def lmdb(plan: Plan, dataset: str, split: str) -> str:
    """The packed archive of a split."""
    return f"{plan.config.resources}/lmdb/{dataset}.{split}.lmdb"


def store(plan: Plan, dataset: str, split: str) -> str:
    """The prepared images of a split."""
    return f"{root(plan)}/data/{dataset}.{split}.h5"


def compared(plan: Plan, id: str) -> str:
    """What is identical among the sets of an ID set."""
    return f"{root(plan)}/compared/{id}.json"


def of_network(plan: Plan, kind: str, run: Trained, rest: str = "") -> str:
    """A file of one trained network: root/kind/id/network/recipe/seedN, then ``rest`` as it is."""
    return f"{root(plan)}/{kind}/{run.id}/{run.network.name}/{run.path_name}/seed{run.seed}{rest}"


def start(plan: Plan, shared: Start) -> str:
    """First epochs that several trainings share."""
    run = shared.run
    return f"{root(plan)}/starts/{run.id}/{run.network.name}/{shared.name}/seed{run.seed}.pt"


def features(plan: Plan, run: Trained, sets: Iterable[tuple[str, str]]) -> list[str]:
    """The features files of (dataset, split)."""
    return [of_network(plan, "features", run, f"/{name}.h5") for name in _features_names(run.id, sets)]


def train_features(plan: Plan, run: Trained) -> str:
    """The features file of the ID train set."""
    return features(plan, run, [(run.id, "train")])[0]


def test_features(plan: Plan, run: Trained) -> str:
    """The features file of the ID test set."""
    return features(plan, run, [(run.id, "test")])[0]


def _features_names(id: str, sets: Iterable[tuple[str, str]]) -> list[str]:
    """One file for each split of the ID set, and one for all other sets: one job writes them, each score reads them,
    and few inputs make a small workflow."""
    return list(dict.fromkeys(f"{dataset}.{split}" if dataset == id else "ood" for dataset, split in sets))


def imported(plan: Plan, taken: Taken, kind: str) -> str:
    """The scores (`h5`) or metrics (`csv`) of another tool's score files."""
    return f"{root(plan)}/imported/{'/'.join(map(str, taken.key[:3]))}/seed{taken.key.seed}.{kind}"


def of_paper(plan: Plan, paper: str, kind: str) -> str:
    """A file of a paper: its table (csv, md, tex), published numbers, intervals, manifest, or a figure by file name."""
    if kind in ("csv", "md", "tex"):
        return f"{root(plan)}/tables/{paper}.{kind}"
    if kind in ("published", "intervals"):
        return f"{root(plan)}/{kind}/{paper}.csv"
    if kind == "manifest":
        return f"{root(plan)}/tables/{paper}.manifest.json"
    return f"{root(plan)}/figures/{paper}/{kind}"


def page(plan: Plan) -> str:
    """The results page."""
    return f"{root(plan)}/report.html"
