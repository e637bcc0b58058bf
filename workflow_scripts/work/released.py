"""What stands beside the corrected results: test sets by other lists, and trainings with defects.

SC-OOD's lists say which images of a test set belong to a class of the ID set in meaning; a row of the dataset table
takes one part of one list (reader `scood`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from workflow_scripts.config.catalogue import Dataset
from workflow_scripts.work.plan import Trained

BENCHMARK = "cifar100"  # whose lists G-OE's code takes for every ID set (goe.2g-1)


def relisted(datasets: Mapping[str, Dataset], sets: Iterable[str]) -> dict[str, str]:
    """Of test sets by the lists of another benchmark than :data:`BENCHMARK`: the same sets by its lists."""
    found = {}
    for name in sets:
        options = _listed(datasets, name)
        if options and options["benchmark"] != BENCHMARK:
            found[name] = _row(datasets, {**options, "benchmark": BENCHMARK})
    return {name: other for name, other in found.items() if other}


def id_like(datasets: Mapping[str, Dataset], sets: Iterable[str]) -> dict[str, str]:
    """Of test sets by lists: the images that these lists give an ID class, where the table has a row of them."""
    found = {name: _row(datasets, {**options, "part": "id_like", "labels": "sc_label"})
             for name in sets if (options := _listed(datasets, name))}
    return {name: other for name, other in found.items() if other}


def _listed(datasets: Mapping[str, Dataset], name: str) -> dict[str, Any] | None:
    row = datasets[name]
    return row.options_of("test") if row.reader == "scood" else None


def _row(datasets: Mapping[str, Dataset], wanted: dict[str, Any]) -> str | None:
    return next((name for name, row in datasets.items()
                 if "test" in row.splits and _listed(datasets, name) == wanted), None)


def pairs(runs: Iterable[Trained]) -> list[tuple[Trained, Trained]]:
    """(corrected, as released): trainings that differ by defects alone, one pair for all seeds."""
    runs = list({(r.id, r.network.name, r.path_name): r for r in runs}.values())

    def bare(run: Trained) -> tuple:
        return run.id, run.network.name, run.recipe.model_dump(exclude={"name", "label", "released", "where"})

    found = []
    for run in runs:
        fewer = [r for r in runs if set(r.released) < set(run.released) and bare(r) == bare(run)]
        if fewer:
            found.append((min(fewer, key=lambda r: len(r.released)), run))
    return found
