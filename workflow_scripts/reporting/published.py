"""A paper's numbers against ours over seeds: a row for each in the unit of print, as a frame and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from workflow_scripts.reporting.inputs import PublishedRow, PublishedTable
from workflow_scripts.reporting.layout import Cell, Column, Table, table
from workflow_scripts.reporting.results import AVERAGE, corrected, read_frame
from workflow_scripts.reporting.statistics import METRICS, Seeds, average, metric

POINTS = 0.5
"""Smallest tolerance, in the unit of print."""
ID_METRICS = ("accuracy", "aurc")
HEADER = ["id", "network", "training", "score", "sets", "metric", "paper", "ours", "std", "n", "difference",
          "tolerance", "verdict", "source", "verified", "because", "values"]
HEADS = ("ID set", "Network", "Training", "Score", "OOD sets", "Metric", "Paper", "Ours", "Difference",
         "Within tolerance?", "Source")


def against(ours: Seeds | None, paper: float, name: str, verified: bool, because: str) -> dict[str, Any]:
    """What the columns of :data:`HEADER` say of our number beside a published one; ``None`` where there is none.

    The tolerance is the larger of two standard deviations over our seeds and :data:`POINTS`.

    Args:
        ours: fractions; ``None``: nothing compares, and ``because`` says why.
        paper: in print.
    """
    scale = metric(name).scale
    mean, std = (None if ours is None or value is None else value * scale
                 for value in ((ours.mean, ours.std) if ours is not None else (None, None)))
    difference = mean - paper if mean is not None and verified else None
    tolerance = None if difference is None else max(2 * scale * (ours.std or 0.0), POINTS)
    if because == "small run":
        verdict = "small run, not comparable"
    elif ours is None:
        verdict = f"not comparable: {because}"
    elif not verified:
        verdict = "not comparable: the source is not verified"
    elif difference is None:
        verdict = "ours is missing"
    else:
        verdict = "yes" if round(abs(difference), 9) <= tolerance else "no"
    return {"paper": paper, "ours": mean, "std": std, "n": None if ours is None else ours.n, "difference": difference,
            "tolerance": tolerance, "verdict": verdict, "verified": "yes" if verified else "no", "because": because,
            "values": "" if ours is None else ours.text() or "none"}


def numbers(results: pd.DataFrame, published: Sequence[PublishedTable]) -> pd.DataFrame:
    """All published numbers of a paper, in the order of their file, with the columns :data:`HEADER`."""
    single = results[corrected(results) & (results["group"] != AVERAGE)]
    found = single.set_index(["id", "network", "recipe", "score", "dataset", "metric"])["seeds"].to_dict()

    def ours(row: PublishedRow, name: str) -> tuple[Seeds | None, str]:
        if row.ours is None:
            return None, row.because
        if name.partition("@")[0] not in METRICS:
            return None, f"the source does not say which {name.upper()}"
        sets = [row.ours.id] if name in ID_METRICS else row.datasets
        if sets is None:
            return None, row.because_sets
        run = row.ours.id, row.ours.network, row.ours.recipe
        each = [found.get((*run, row.ours.score, s, name), found.get((*run, "", s, name))) for s in sets]
        return Seeds(()) if None in each else average(each), ""

    rows = []
    for of in published:
        for row in of.rows:
            for name, paper in zip(of.metrics, row.values, strict=True):
                seeds, because = ours(row, name)
                rows.append({"id": of.id, "network": of.network, "training": row.training, "score": of.score,
                             "sets": row.sets, "metric": name, "source": of.source,
                             **against(seeds, paper, name, of.verified, because)})
    return framed(rows)


def framed(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as a frame: missing numbers are NaN, a missing count is NA."""
    return pd.DataFrame(rows, columns=HEADER).astype(
        {"paper": float, "ours": float, "std": float, "n": "Int64", "difference": float, "tolerance": float})


def read(path: str | Path) -> pd.DataFrame:
    """The numbers of a CSV.

    Raises:
        OODError: another header.
    """
    frame = read_frame(path, HEADER, "delete the file and run again")
    numbers = ["paper", "ours", "std", "n", "difference", "tolerance"]
    return framed(frame.assign(**{key: [float(x) if x else None for x in frame[key]] for key in numbers}))


def summary(rows: pd.DataFrame) -> str:
    """One sentence: how many numbers compare, and how they do."""
    compared = rows[rows["difference"].notna()]
    if compared.empty:
        return f"{len(rows)} published numbers; none is compared ({'; '.join(dict.fromkeys(rows['verdict']))})."
    return (f"{len(rows)} published numbers, {len(compared)} of them compared, {(compared['verdict'] == 'yes').sum()} "
            "within the tolerance (the larger of two standard deviations over our seeds and 0.5 points)."
            + (" One seed somewhere: there the tolerance is 0.5 points alone." if (compared["n"] == 1).any() else ""))


def compares(rows: pd.DataFrame) -> bool:
    """Whether any of the numbers is compared."""
    return bool(rows["difference"].notna().any())


def laid_out(rows: pd.DataFrame, names: Mapping[str, str] | None = None) -> Table:
    """The numbers as a table."""
    said = summary(rows)
    lines = [_cells(row, names or {}) for row in rows.itertuples()]
    columns = {Column(head, numbers=head in ("Paper", "Ours", "Difference")): cells
               for head, cells in zip(HEADS, zip(*lines, strict=True), strict=True)}
    return table("Published numbers", f"Published numbers. {said}", columns, before=(said,))


def _cells(row: Any, names: Mapping[str, str]) -> list[Cell | str]:
    """A row under :data:`HEADS`; ``–`` where there is no number."""
    def one(value: float) -> str:
        return f"{value:.2f}".replace("-", "−")

    def ours() -> Cell:
        if pd.isna(row.n):
            return Cell("–")
        if not row.n:
            return Cell("missing")
        return Cell(one(row.ours) + ("" if pd.isna(row.std) else f" ± {row.std:.2f}"), row.ours)

    labelled = row.metric in METRICS
    return [names.get(row.id, row.id), row.network, row.training, row.score,
            "ID task" if row.metric in ID_METRICS else row.sets,
            metric(row.metric).label if labelled else row.metric.upper(), Cell(one(row.paper), row.paper), ours(),
            Cell("–") if pd.isna(row.difference) else
            Cell(f"{round(row.difference, 2) + 0.0:+.2f}".replace("-", "−"), row.difference),
            Cell(row.verdict, flag="within-no" if row.verdict == "no" else ""),
            row.source if row.verified == "yes" else f"{row.source} (not verified)"]
