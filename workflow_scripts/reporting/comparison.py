"""Corrected against as released, wherever both ran: trainings, test sets, metric rules.

:class:`Compare` says what to pair: ``trainings``, ``rules`` whose metrics (``auroc@goe``) are the released ones, and
``sets``, defects whose test sets stand in groups such as ``far+2g-1`` (``all+2g-1``: the mean over all sets).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from workflow_scripts.reporting.inputs import Compare
from workflow_scripts.reporting.layout import Cell, Column, Table, label, number, table
from workflow_scripts.reporting.results import AVERAGE
from workflow_scripts.reporting.statistics import Seeds, metric

METRICS = ("auroc", "fpr95", "aupr_in")
ID_METRICS = ("accuracy", "aurc")


@dataclass(frozen=True)
class Pair:
    """One metric: corrected, as released, and the difference over the seeds that both have. Values are fractions."""

    metric: str
    corrected: Seeds | None
    released: Seeds | None

    @property
    def difference(self) -> Seeds:
        """Released less corrected, seed by seed."""
        before = dict(self.corrected.values) if self.corrected else {}
        after = self.released.values if self.released else ()
        return Seeds(tuple((seed, value - before[seed]) for seed, value in after
                           if value is not None and before.get(seed) is not None))

    @property
    def text(self) -> str:
        """The difference with its sign, in the metric's unit; empty where a side has no number."""
        difference = self.difference
        if not difference.n:
            return ""
        scale = metric(self.metric).scale
        spread = "" if difference.std is None else f" ± {difference.std * scale:.1f}"
        mean = round(difference.mean * scale, 1) + 0.0  # no -0.0
        return f"{mean:+.1f}{spread}".replace("-", "−")

    @property
    def cells(self) -> list[Cell]:
        """Corrected, as released, difference; empty where nothing ran as released."""
        if not self.released:
            return [Cell("")] * 3
        return [number(self.metric, self.corrected), number(self.metric, self.released),
                Cell(self.text, self.difference.mean if self.text else None)]


@dataclass(frozen=True)
class Compared:
    """One row: a defect (or several together), what it was measured on, a pair for each metric."""

    defects: str
    id: str
    network: str
    label: str
    score: str
    sets: str
    pairs: tuple[Pair, ...]


def compared(results: pd.DataFrame, compare: Compare | None) -> list[Compared]:
    """All rows, one metric after the other in each: those of :data:`METRICS`, then of :data:`ID_METRICS`."""
    if compare is None:
        return []
    found = results.set_index(["id", "network", "recipe", "score", "dataset", "group", "metric"])["seeds"].to_dict()
    heads = results[results["group"] == AVERAGE].groupby(["id", "network", "recipe", "label", "score"], sort=False)[
        "dataset"].unique().to_dict()

    def row(defects: list[str], head: tuple[str, ...], sides: tuple[tuple[str, str, str], ...]) -> Compared:
        """``sides``: (recipe, average, ending of the metrics' names) of corrected and released."""
        id, network, _, label, score = head
        moved = sides[0][1] != sides[1][1]  # other sets: the ID task is the same
        pairs = []
        for name in (*METRICS, *ID_METRICS):
            if name in METRICS:
                both = [found.get((id, network, recipe, score, sets, AVERAGE, name + ending))
                        for recipe, sets, ending in sides]
            else:
                both = [None if moved else found.get(
                    (id, network, recipe, score, id, "id", name + ending),
                    found.get((id, network, recipe, "", id, "id", name + ending))) for recipe, _, ending in sides]
            pairs.append(Pair(name, *both) if both[1] else Pair(name, None, None))
        return Compared(", ".join(defects), id, network, label, score, sides[0][1], tuple(pairs))

    rows = []
    for training in compare.trainings:
        key = training.id, training.network, training.corrected
        rows += [row(training.defects, head, ((key[2], "all", ""), (training.released, "all", "")))
                 for head in heads if head[:3] == key]
    for paper, defect in compare.rules.items():
        rows += [row([defect], head, ((head[2], "all", ""), (head[2], "all", f"@{paper}"))) for head in heads]
    for ending, defect in compare.sets.items():
        rows += [row([defect], head, ((head[2], sets, ""), (head[2], sets + ending, "")))
                 for head, there in heads.items() for sets in there if sets + ending in there]
    return [r for r in rows if any(p.released for p in r.pairs)]


def laid_out(rows: Sequence[Compared], names: Mapping[str, str]) -> list[Table]:
    """The table, for metrics that some row has; none where nothing ran both ways."""
    if not rows:
        return []
    columns: dict[Column, Sequence[Cell | str]] = {
        Column("Defect", numbers=False): [r.defects for r in rows],
        Column("ID set, network", numbers=False): [f"{names.get(r.id, r.id)}, {names.get(r.network, r.network)}"
                                                   for r in rows]}
    for key, title in (("label", "Training"), ("score", "Score"), ("sets", "OOD sets")):
        columns[Column(title, numbers=False)] = [names.get(getattr(r, key), getattr(r, key)) for r in rows]
    for pairs in zip(*(r.pairs for r in rows), strict=True):
        if any(pair.released for pair in pairs):
            parts = zip(*(pair.cells for pair in pairs), strict=True)
            columns |= {Column(title, label(pairs[0].metric)): list(cells)
                        for title, cells in zip(("corrected", "released", "difference"), parts, strict=True)}
    return [table("Corrected and as released", "Corrected and as released.", columns, joined="{} → {} ({})", before=(
        "Corrected → as released (difference over the seeds that both have). What a defect does: docs/config.md.",))]
