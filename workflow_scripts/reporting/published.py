"""A paper's numbers against ours: read from the config, compared over our seeds, as rows for CSV, Markdown and page.

``published`` of a paper's config is a list of tables (``source``, ``verified``, ``id``, ``network``, ``score``,
``metrics``, ``rows``). A row has ``training``, ``sets``, ``values`` (one per metric, in print) and either ``because``
(why nothing here compares) or ``ours`` (``id``, ``network``, ``recipe``, ``score``) with ``datasets`` or
``because_sets``.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.files import atomic
from workflow_scripts.reporting.results import Result
from workflow_scripts.reporting.statistics import METRICS, Seeds, average, metric

POINTS = 0.5
"""Smallest tolerance, in the unit of print."""
ID_METRICS = ("accuracy", "aurc")
HEADER = ["id", "network", "training", "score", "sets", "metric", "paper", "ours", "std", "n", "difference",
          "tolerance", "verdict", "source", "verified", "because", "values"]


@dataclass(frozen=True)
class Number:
    """One published number, in the unit of print, and ours over seeds (fractions; ``None``: nothing compares)."""

    id: str
    network: str
    training: str
    score: str
    sets: str
    metric: str
    paper: float
    ours: Seeds | None
    because: str
    source: str
    verified: bool

    @property
    def scale(self) -> float:
        return metric(self.metric).scale

    @property
    def comparable(self) -> bool:
        return self.ours is not None and self.verified

    @property
    def difference(self) -> float | None:
        """Ours less the paper's."""
        return self.ours.mean * self.scale - self.paper if self.comparable and self.ours.n else None

    @property
    def tolerance(self) -> float | None:
        """The larger of two standard deviations over our seeds and :data:`POINTS`."""
        if self.difference is None:
            return None
        return max(2 * self.scale * (self.ours.std or 0.0), POINTS)

    @property
    def verdict(self) -> str:
        """``yes`` or ``no``: within the tolerance; or why that cannot be said."""
        if self.because == "small run":
            return "small run, not comparable"
        if self.ours is None:
            return f"not comparable: {self.because}"
        if not self.verified:
            return "not comparable: the source is not verified"
        if self.difference is None:
            return "ours is missing"
        return "yes" if round(abs(self.difference), 9) <= self.tolerance else "no"


def numbers(results: Sequence[Result], tables: Iterable[dict[str, Any]]) -> list[Number]:
    """All published numbers of a paper, in the order of their file."""
    found = {(r.id, r.network, r.recipe, r.score, r.dataset, r.metric): r.seeds for r in results
             if not r.other_sets and r.group != "average"}

    def ours(row: dict[str, Any], name: str) -> tuple[Seeds | None, str]:
        if "ours" not in row:
            return None, row["because"]
        if name.partition("@")[0] not in METRICS:
            return None, f"the source does not say which {name.upper()}"
        run = tuple(row["ours"][key] for key in ("id", "network", "recipe"))
        if name in ID_METRICS:
            sets = [row["ours"]["id"]]
        elif "datasets" in row:
            sets = row["datasets"]
        else:
            return None, row["because_sets"]
        each = [found.get((*run, row["ours"]["score"], s, name), found.get((*run, "", s, name))) for s in sets]
        return Seeds(()) if None in each else average(each), ""

    return [Number(table["id"], table["network"], row["training"], table["score"], row["sets"], name, float(value),
                   *ours(row, name), table["source"], table["verified"])
            for table in tables for row in table["rows"] for name, value in zip(table["metrics"], row["values"],
                                                                                strict=True)]


def write_csv(path: str | Path, rows: Iterable[Number]) -> None:
    """The rows in the unit of print, with all digits; empty where there is no number."""
    def cell(value: float | None) -> str:
        return "" if value is None else repr(value)

    with atomic(path) as partial, open(partial, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        for r in rows:
            mean, std = ((r.ours.mean, r.ours.std) if r.ours else (None, None))
            printed = [None if v is None else v * r.scale for v in (mean, std)]
            writer.writerow([r.id, r.network, r.training, r.score, r.sets, r.metric, cell(r.paper), *map(cell, printed),
                             r.ours.n if r.ours else "", cell(r.difference), cell(r.tolerance), r.verdict, r.source,
                             "yes" if r.verified else "no", r.because,
                             "" if r.ours is None else r.ours.text() or "none"])


def read_csv(path: str | Path) -> list[Number]:
    """The inverse of :func:`write_csv`.

    Raises:
        OODError: another header.
    """
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != HEADER:
            raise OODError(f"{path}: expected the columns {','.join(HEADER)}, found {reader.fieldnames}; delete the "
                           "file and run again")
        return [Number(r["id"], r["network"], r["training"], r["score"], r["sets"], r["metric"], float(r["paper"]),
                       None if not r["values"] else Seeds.parse("" if r["values"] == "none" else r["values"]),
                       r["because"], r["source"], r["verified"] == "yes") for r in reader]


def printed(row: Number) -> tuple[str, str, str]:
    """Paper's number, ours and the difference as text; ``–`` where there is none."""
    def one(value: float) -> str:
        return f"{value:.2f}".replace("-", "−")

    ours = "–"
    if row.ours is not None:
        ours = "missing" if not row.ours.n else one(row.ours.mean * row.scale) + (
            "" if row.ours.std is None else f" ± {row.ours.std * row.scale:.2f}")
    difference = "–" if row.difference is None else f"{round(row.difference, 2) + 0.0:+.2f}".replace("-", "−")
    return one(row.paper), ours, difference


def summary(rows: Sequence[Number]) -> str:
    """One sentence: how many numbers compare, and how they do."""
    compared = [r for r in rows if r.difference is not None]
    if not compared:
        reasons = dict.fromkeys(r.verdict for r in rows)
        return f"{len(rows)} published numbers; none is compared ({'; '.join(reasons)})."
    within = sum(r.verdict == "yes" for r in compared)
    alone = any(r.ours.n == 1 for r in compared)
    return (f"{len(rows)} published numbers, {len(compared)} of them compared, {within} within the tolerance (the "
            "larger of two standard deviations over our seeds and 0.5 points)."
            + (" One seed somewhere: there the tolerance is 0.5 points alone." if alone else ""))


HEADS = ("ID set", "Network", "Training", "Score", "OOD sets", "Metric", "Paper", "Ours", "Difference",
         "Within tolerance?", "Source")


def cells(row: Number) -> list[str]:
    """A row as text, under :data:`HEADS`."""
    sets = "ID task" if row.metric in ID_METRICS else row.sets
    label = metric(row.metric).label if row.metric in METRICS else row.metric.upper()
    source = row.source if row.verified else f"{row.source} (not verified)"
    return [row.id, row.network, row.training, row.score, sets, label, *printed(row), row.verdict, source]


def markdown(rows: Sequence[Number]) -> list[str]:
    """The comparison in Markdown; where nothing compares, one sentence."""
    if not rows:
        return []
    lines = ["### Published numbers", "", summary(rows), ""]
    if any(r.difference is not None for r in rows):
        lines += ["| " + " | ".join(HEADS) + " |", "|:--|:--|:--|:--|:--|:--|--:|--:|--:|:--|:--|"]
        lines += ["| " + " | ".join(cell.replace("|", r"\|") for cell in cells(r)) + " |" for r in rows] + [""]
    return lines
