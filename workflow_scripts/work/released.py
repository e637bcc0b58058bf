"""What stands beside the corrected results: test sets as a release takes them, and trainings with defects.

SC-OOD's lists say which images of a test set belong to a class of the ID set in meaning; a row of the dataset table
takes one part of one list (reader `scood`) at one geometry.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from workflow_scripts.config.catalogue import Dataset
from workflow_scripts.work.plan import Parts, Trained


class Listed(NamedTuple):
    """What a row takes of SC-OOD: a part of one list at a geometry."""

    benchmark: str
    set: str
    part: str
    labels: str
    geometry: str
    rest: tuple[tuple[str, str], ...]
    """The reader's other options, which say where the files lie."""


class Digits(NamedTuple):
    """What a row takes of SVHN."""

    limit_per_class: int | None
    sample: str
    geometry: str
    rest: tuple[tuple[str, str], ...]


SWITCHES: dict[str, tuple[type[Listed] | type[Digits], dict[str, Any]]] = {
    "goe.2c": (Listed, {"geometry": "squash32"}),
    "goe.2g-1": (Listed, {"benchmark": "cifar100"}),
    "himplos.1h-3": (Digits, {"limit_per_class": None})}
"""Defects of the evaluation -> rows that they concern, and what the release has in the place of ours."""


def otherwise(datasets: Mapping[str, Dataset], sets: Iterable[str],
              switches: Sequence[str]) -> dict[tuple[str, ...], dict[str, str]]:
    """Of each combination of switches (:data:`SWITCHES`): set -> the set that the release has in its place.

    A set is left out of a combination where one of its switches changes nothing, or where the table has no such row.
    """
    rows, sets = _rows(datasets), list(sets)
    asked = [switch for switch in SWITCHES if switch in switches]
    sizes = range(1, len(asked) + 1)
    made = {}
    for combination in itertools.chain.from_iterable(itertools.combinations(asked, size) for size in sizes):
        found = {}
        for name in sets:
            row = changed = _taken(datasets[name])
            if row is None or any(_switched(row, switch) == row for switch in combination):
                continue
            for switch in combination:
                changed = _switched(changed, switch)
            if changed in rows:
                found[name] = rows[changed]
        if found:
            made[combination] = found
    return made


def parts(datasets: Mapping[str, Dataset], id: str, sets: Iterable[str]) -> dict[str, Parts]:
    """Of test sets with images that SC-OOD's lists give an ID class, where the table has rows of them.

    The other CIFAR, which is taken whole, is divided by the list of its name in the ID set's benchmark; of other sets
    the lists hold other images than their own rows.
    """
    rows = _rows(datasets)
    by_list = {(row.benchmark, row.set): name for row, name in rows.items()
               if isinstance(row, Listed) and row.part == "ood"}
    found = {}
    for name in sets:
        whole = datasets[name].reader == "cifar_binary"
        ood = by_list.get((id, name)) if whole else name
        row = _taken(datasets[ood]) if ood else None
        like = rows.get(row._replace(part="id_like", labels="sc_label")) if isinstance(row, Listed) else None
        if ood and like:
            found[name] = Parts(ood, like)
    return found


def _switched(row: Any, switch: str) -> Any:
    """What the release has in the place of a row; the row itself where the switch is of another kind of rows."""
    kind, changes = SWITCHES[switch]
    return row._replace(**changes) if isinstance(row, kind) else row


def _taken(row: Dataset) -> Listed | Digits | None:
    """What a row takes of SC-OOD or SVHN; ``None`` where it is of another kind."""
    if "test" not in row.splits:
        return None
    if row.reader == "svhn_mat":
        return Digits(row.limit_per_class, repr(row.sample), row.geometry, _rest(row.options_of("test")))
    if row.reader == "scood":
        options = {"part": "ood", "labels": "none", **row.options_of("test")}
        named = {key: options.pop(key) for key in ("benchmark", "set", "part", "labels")}
        return Listed(**named, geometry=row.geometry, rest=_rest(options))
    return None


def _rest(options: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((key, repr(value)) for key, value in options.items()))


def _rows(datasets: Mapping[str, Dataset]) -> dict[Listed | Digits, str]:
    """The rows that take a part of SC-OOD or SVHN, by what they take; of equal ones the first."""
    rows: dict[Listed | Digits, str] = {}
    for name, entry in datasets.items():
        if row := _taken(entry):
            rows.setdefault(row, name)
    return rows


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
