"""Where the files of a run are: below ``root``, which is ``results``/variant."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from workflow_scripts.work.plan import Taken, Trained

Wildcards = Any  # Snakemake's; attributes by name


def store(root: str, dataset: str, split: str) -> str:
    """The prepared images of a split."""
    return f"{root}/data/{dataset}.{split}.h5"


def of_network(root: str, kind: str, run: Trained, rest: str = "") -> str:
    """A file of one trained network: root/kind/id/network/recipe/seedN, then ``rest`` as it is."""
    return f"{root}/{kind}/{run.id}/{run.network.name}/{run.path_name}/seed{run.seed}{rest}"


def features(root: str, run: Trained, sets: Iterable[tuple[str, str]]) -> list[str]:
    """The features files of (dataset, split)."""
    return [of_network(root, "features", run, f"/{name}.h5") for name in features_names(run.id, sets)]


def features_names(id: str, sets: Iterable[tuple[str, str]]) -> list[str]:
    """One file for each split of the ID set, and one for all other sets: one job writes them, each score reads them,
    and few inputs make a small workflow."""
    return list(dict.fromkeys(f"{dataset}.{split}" if dataset == id else "ood" for dataset, split in sets))


def imported(root: str, taken: Taken, kind: str) -> str:
    """The scores (`h5`) or metrics (`csv`) of another tool's score files."""
    return f"{root}/imported/{'/'.join(map(str, taken.key[:3]))}/seed{taken.key.seed}.{kind}"


def of_paper(root: str, paper: str, kind: str) -> str:
    """A file of a paper: its table (csv, md, tex), published numbers, manifest, or a figure by file name."""
    if kind in ("csv", "md", "tex"):
        return f"{root}/tables/{paper}.{kind}"
    if kind == "published":
        return f"{root}/published/{paper}.csv"
    if kind == "manifest":
        return f"{root}/tables/{paper}.manifest.json"
    return f"{root}/figures/{paper}/{kind}"
