"""A paper's numbers against ours over seeds: a row for each in the unit of print, as a frame and as a table."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from workflow_scripts.reporting.inputs import PublishedRow, PublishedTable
from workflow_scripts.reporting.layout import Cell, Column, Table, table
from workflow_scripts.reporting.results import AVERAGE, read_frame
from workflow_scripts.reporting.statistics import METRICS, Seeds, average, metric

ID_METRICS = ("accuracy", "aurc")
HEADER = ["id", "network", "training", "score", "sets", "metric", "paper", "ours", "std", "n", "difference",
          "tolerance", "verdict", "but_for", "inferred", "run", "source", "verified", "because", "values"]
HEADS = ("ID set", "Network", "Training", "Score", "OOD sets", "Metric", "Paper", "Ours", "Difference",
         "Within tolerance?", "Our run", "Remarks", "Source")
NUMBERS = ("Paper", "Ours", "Difference")
PROSE = ("Within tolerance?", "Remarks", "Source")
PRINTED = ["id", "network", "training", "score", "sets", "metric", "source"]
"""What tells one published number from the others."""
TOLERANCE = ("the larger of two standard deviations over our seeds and what the metric allows: 0.5 points, "
             "of AURC 2 % of the published value")


def against(ours: Seeds | None, paper: float, name: str, verified: bool, because: str, run: str = "",
            but_for: Sequence[str] = (), inferred: Sequence[str] = ()) -> dict[str, Any]:
    """What the columns of :data:`HEADER` say of our number beside a published one; ``None`` where there is none.

    The tolerance is the larger of two standard deviations over our seeds and that of the metric.

    Args:
        ours: fractions; ``None``: nothing compares, and ``because`` says why.
        paper: in print.
        run: the run of ours.
        but_for: declared differences that leave the comparison meaningful.
        inferred: what the source does not say.
    """
    measure = metric(name)
    mean, std = (None if ours is None or value is None else value * measure.scale
                 for value in ((ours.mean, ours.std) if ours is not None else (None, None)))
    difference = mean - paper if mean is not None and verified else None
    tolerance = None if difference is None else max(2 * measure.scale * (ours.std or 0.0), measure.tolerance(paper))
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
            "run": run, "but_for": "; ".join(but_for), "inferred": "; ".join(inferred),
            "values": "" if ours is None else ours.text() or "none"}


def numbers(results: pd.DataFrame, published: Sequence[PublishedTable],
            incomplete: Mapping[str, str] | None = None) -> pd.DataFrame:
    """All published numbers of a paper, in the order of their file, with the columns :data:`HEADER`.

    A number that several runs are held against has a row for each.

    Args:
        incomplete: ID sets that have other train images than the complete set -> what is the matter.
    """
    single = results[results["group"] != AVERAGE]
    found = single.set_index(["id", "network", "recipe", "score", "dataset", "metric"])
    seeds = dict(zip(found.index, found["seeds"], strict=True))
    images = dict(zip(found.index, zip(found["n_id"], found["n_ood"], strict=True), strict=True))
    computed = set(single["metric"])
    rows = []
    for of in published:
        for row in of.rows:
            for name, paper in zip(of.metrics, row.values, strict=True):
                because = (incomplete or {}).get(row.ours.id, "") if row.ours else ""
                ours, because = (None, because) if because else _ours(row, name, seeds, images, computed)
                apart = name in ID_METRICS  # test sets are no part of it
                rows.append({"id": of.id, "network": of.network, "training": row.training, "score": of.score,
                             "sets": row.sets, "metric": name, "source": of.source,
                             **against(ours, paper, name, of.verified, because,
                                       f"{row.ours.recipe}, {row.ours.score}" if row.ours else "",
                                       [*row.but_for, *(() if apart else row.but_for_sets)],
                                       [*row.inferred, *(() if apart else row.inferred_sets)])})
    return framed(rows)


def _ours(row: PublishedRow, name: str, seeds: Mapping[tuple, Seeds], images: Mapping[tuple, tuple],
          computed: Collection[str]) -> tuple[Seeds | None, str]:
    """Our number beside a published one, or why nothing compares."""
    if row.ours is None:
        return None, row.because
    base, _, rule = name.partition("@")
    if base not in METRICS:
        return None, f"the source does not say which {name.upper()}"
    sets = [row.ours.id] if name in ID_METRICS else row.datasets
    if sets is None or (row.because_sets and name not in ID_METRICS):
        return None, row.because_sets
    if rule and name not in computed:
        return None, f"{name} is not computed here; it is with compat: [{rule}]"
    run = row.ours.id, row.ours.network, row.ours.recipe
    keys = [next((key for score in (row.ours.score, "") if (key := (*run, score, s, name)) in seeds), None)
            for s in sets]
    if None in keys:
        return Seeds(()), ""
    for s, (n_id, n_ood) in zip(sets, map(images.__getitem__, keys), strict=True):
        for dataset, count in {s: n_ood, row.ours.id: n_id}.items():  # of the ID task there is one set
            if not pd.isna(count) and count != row.counts.get(dataset, count):
                return None, f"dataset {dataset} has {count:,} test images, complete {row.counts[dataset]:,}"
    return average([seeds[key] for key in keys]), ""


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
    count = len(rows.drop_duplicates(PRINTED))
    if compared.empty:
        return f"{count} published numbers; none is compared ({'; '.join(dict.fromkeys(rows['verdict']))})."
    numbers, within = len(compared.drop_duplicates(PRINTED)), (compared["verdict"] == "yes").sum()
    several = "" if numbers == len(compared) else f" of {len(compared)} comparisons"
    lines = [f"{count} published numbers, {numbers} of them compared, {within}{several} within the tolerance "
             f"({TOLERANCE})."]
    if (compared["n"] == 1).any():
        lines.append("One seed somewhere: there the tolerance is the metric's alone.")
    if compared[["but_for", "inferred"]].ne("").any(axis=None):
        lines.append("Remarks say in what a run still differs, and what the source does not say.")
    return " ".join(lines)


def compares(rows: pd.DataFrame) -> bool:
    """Whether any of the numbers is compared."""
    return bool(rows["difference"].notna().any())


def laid_out(rows: pd.DataFrame, names: Mapping[str, str] | None = None) -> Table:
    """The numbers as a table."""
    said = summary(rows)
    lines = [_cells(row, names or {}) for row in rows.itertuples()]
    columns = {Column(head, style="prose" if head in PROSE else "", numbers=head in NUMBERS): cells
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

    labelled = row.metric.partition("@")[0] in METRICS
    remarks = [f"comparable but for {row.but_for}"] if row.but_for and not pd.isna(row.difference) else []
    remarks += [f"inferred: {row.inferred}"] if row.inferred else []
    return [names.get(row.id, row.id), row.network, row.training, row.score,
            "ID task" if row.metric in ID_METRICS else row.sets,
            metric(row.metric).label if labelled else row.metric.upper(), Cell(one(row.paper), row.paper), ours(),
            Cell("–") if pd.isna(row.difference) else
            Cell(f"{round(row.difference, 2) + 0.0:+.2f}".replace("-", "−"), row.difference),
            Cell(row.verdict, flag="within-no" if row.verdict == "no" else ""), row.run, "; ".join(remarks),
            row.source if row.verified == "yes" else f"{row.source} (not verified)"]
