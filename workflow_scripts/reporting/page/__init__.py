"""The results page: what the template needs, from the tidy tables, figures, cards and manifests of a run."""

from __future__ import annotations

import base64
import html
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from workflow_scripts.core.errors import OODError
from workflow_scripts.reporting import claims, comparison, intervals, layout, overview, published, results, tuned
from workflow_scripts.reporting.inputs import Page, PaperFiles
from workflow_scripts.reporting.layout import Cell, Column, Table
from workflow_scripts.reporting.results import AVERAGE
from workflow_scripts.reporting.statistics import metric, show


@dataclass(frozen=True)
class Figure:
    """A figure ready to be put into the page: ``markup`` is inline SVG or an ``img`` with its data."""

    title: str
    caption: str
    markup: str
    file: str


@dataclass(frozen=True)
class BelowChance:
    """One OOD set with scores of an AUROC below 50: ``entries`` are (training and network, score, printed AUROC)."""

    dataset: str
    entries: list[tuple[str, str, str]]
    note: str


@dataclass(frozen=True)
class Paper:
    """One paper's section."""

    anchor: str
    title: str
    about: list[str]
    reference: str
    claim: claims.Shown | None
    tables: list[Table]
    intervals: list[Table]
    tuned: list[Table]
    figures: list[Figure]
    compared: list[Table]
    published: pd.DataFrame
    below: list[BelowChance]
    gaps: list[str]
    downloads: list[tuple[str, str]]
    manifest: dict[str, Any] | None
    results: pd.DataFrame
    rows: pd.DataFrame


def here(path: str | None) -> Path | None:
    """``path`` if a file is there, else ``None``: what has not run is said on the page, not an error."""
    return Path(path) if path and Path(path).is_file() else None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON mapping from ``path``."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise OODError(f"{path}: expected JSON, found an error in it ({error}); delete it and run again") from None
    if not isinstance(content, dict):
        raise OODError(f"{path}: expected a JSON mapping, found a {type(content).__name__}; delete it and run again")
    return content


def paragraphs(text: str) -> list[str]:
    """Text split at empty lines."""
    return [" ".join(part.split()) for part in re.split(r"\n\s*\n", text) if part.strip()]


def figure(path: Path) -> Figure:
    """A figure file for the page: SVG inlined (its ``title`` and ``desc`` become heading and caption), PNG as data."""
    if path.suffix != ".svg":
        data = base64.b64encode(path.read_bytes()).decode("ascii")
        title = path.stem.replace("_", " ")
        return Figure(title, "", f'<img alt="{html.escape(title)}" src="data:image/png;base64,{data}">', path.name)
    text = path.read_text(encoding="utf-8")
    start = text.find("<svg")
    if start < 0:
        raise OODError(f"{path}: expected an SVG, found no <svg> in it; delete it and run again")
    found = [re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL) for tag in ("title", "desc")]
    title, caption = (html.unescape(m[1]) if m else "" for m in found)
    # The page prints title and caption itself; a <title> inside would pop up over every panel.
    markup = re.sub(r"<(title|desc)>.*?</\1>", "", text[start:], flags=re.DOTALL)
    markup = markup.replace("<svg", f'<svg aria-label="{html.escape(title)}"', 1)
    return Figure(title or path.stem, caption, markup, path.name)


def below_chance(rows: pd.DataFrame, names: Mapping[str, str], notes: Mapping[str, str]) -> list[BelowChance]:
    """The OOD sets on which some score's mean AUROC is below 0.5, worst first within a set."""
    low = rows[(rows["metric"] == "auroc") & (rows["group"] != AVERAGE) & results.corrected(rows)]
    low = low.assign(mean=[math.nan if s.mean is None else s.mean for s in low["seeds"]]).query("mean < 0.5")
    one = len(rows[["id", "network"]].drop_duplicates()) == 1
    found = []
    for dataset, items in low.sort_values("mean", kind="stable").groupby("dataset", sort=False):
        entries = [(", ".join(names.get(part, part) for part in ([r.label] if one else [r.label, r.network, r.id])),
                    r.score, show(r.seeds, "auroc")) for r in items.itertuples()]
        found.append(BelowChance(dataset, entries, notes.get(dataset, "")))
    order = list(low["dataset"])
    return sorted(found, key=lambda below: order.index(below.dataset))


def paper(entry: PaperFiles, names: Mapping[str, str], notes: Mapping[str, str]) -> Paper:
    """A paper's section; files that are not there are listed as gaps."""
    table, published_csv, manifest = (here(path) for path in (entry.csv, entry.published, entry.manifest))
    whole = results.read(table) if table else results.collect([])
    rows = tuned.main(whole, entry.tuned)
    intervals_csv = here(entry.intervals)
    paired = intervals.read(intervals_csv) if intervals_csv else None
    tests = intervals.tests(paired, entry.over)
    figures = [(path, here(path)) for path in entry.figures]
    gaps = [] if table else ["no table: none of its runs has finished"]
    gaps += [] if not table or len(rows) else ["its table is empty: no run is listed"]
    gaps += [f"figure {Path(path).name} is not there" for path, found in figures if found is None]
    gaps += [] if manifest else ["no manifest, so its provenance is not known"]
    files = [(path.name, path) for path in (table, here(entry.md), here(entry.tex)) if path]
    files += [(f"{entry.name}.published.csv", published_csv)] if published_csv else []
    anchor = "paper-" + re.sub(r"\W+", "-", entry.name)
    return Paper(
        anchor=anchor, title=entry.title, about=paragraphs(entry.about), reference=entry.reference,
        claim=claims.shown(rows, entry.claim, names),
        tables=[table.ordered("Score") for table in layout.tables(rows, entry.metrics, entry.id_metrics, names,
                                                                  entry.countings, tests, entry.families,
                                                                  entry.listed, entry.headline)],
        intervals=intervals.laid_out(paired, names),
        tuned=[table.ordered("Score") for table in tuned.laid_out(whole, entry.tuned, names, entry.families)],
        figures=[figure(found) for _, found in figures if found],
        compared=comparison.laid_out(comparison.compared(rows, entry.compare), names),
        published=published.read(published_csv) if published_csv else published.framed([]),
        below=below_chance(rows, names, notes), gaps=gaps + results.gaps(whole),
        downloads=[(name, base64.b64encode(path.read_bytes()).decode("ascii")) for name, path in files],
        manifest=read_json(manifest) if manifest else None, results=rows,
        rows=overview.rows(rows, entry.headline, tests).assign(
            paper=entry.name, title=entry.title, anchor=f"#{anchor}"))


def costs(papers: Iterable[Paper]) -> list[Table]:
    """What the jobs that any manifest has cost: by stage, which is the folder of a benchmark file, and each."""
    rows = {job["job"]: job for p in papers for job in (p.manifest or {}).get("stages", [])}
    if not rows:
        return []
    jobs = pd.DataFrame(rows.values()).astype({"seconds": float, "peak_mb": float})
    jobs["stage"] = jobs["job"].str.partition("/")[0]
    stages = jobs.groupby("stage", sort=False).agg(
        count=("job", "size"), seconds=("seconds", lambda s: s.sum(min_count=1)), longest=("seconds", "max"),
        peak_mb=("peak_mb", "max")).sort_values("seconds", ascending=False, kind="stable", key=lambda s: s.fillna(0))
    jobs = jobs.sort_values("job").set_index("stage").loc[stages.index]

    def cells(column: pd.Series, digits: int) -> list[Cell]:
        return [Cell("not measured") if math.isnan(x) else Cell(f"{x:.{digits}f}", x) for x in column]

    return [layout.table("", "", {
        Column("Stage", numbers=False): [name.replace("_", " ") for name in stages.index],
        Column("Jobs"): cells(stages["count"], 0), Column("Seconds in all"): cells(stages["seconds"], 1),
        Column("Longest job, s"): cells(stages["longest"], 1), Column("Peak MB"): cells(stages["peak_mb"], 0)}),
        layout.table("", "", {Column("Job", numbers=False): list(jobs["job"]),
                              Column("Seconds"): cells(jobs["seconds"], 1),
                              Column("Peak MB"): cells(jobs["peak_mb"], 0)})]


def context(section: Page) -> dict[str, Any]:
    """All that the template shows."""
    names = section.names
    papers = [paper(entry, names, section.notes) for entry in section.papers]
    rows = pd.concat([overview.rows(results.collect([])), *(p.rows for p in papers)], ignore_index=True)
    metrics = [m for p, entry in zip(papers, section.papers, strict=True) if p.tables
               for m in (*entry.metrics, *entry.id_metrics,
                         *(m for counting in entry.countings for m in (*counting.names, *counting.id_metrics)))]
    cards = here(section.cards)
    filters = [("paper", "Paper", list(rows["title"].unique()) if len(rows) else [])]
    filters += [(key, title, list(rows[key].unique())) for key, title in (("id", "ID set"), ("network", "Network"))]
    filters.append(("sets", "Mean of OOD sets", sorted(rows["sets"].unique(), key=lambda s: (s != "all", s))))
    order = ("Score", "Training", *map(layout.label, overview.METRICS), "n", "OOD sets", "ID set", "Network", "Paper")
    return {
        "section": section, "about": paragraphs(section.about), "papers": papers, "rows": rows, "names": names,
        "overview": overview.laid_out(rows, names).ordered(*order) if len(rows) else None,
        "seeds": sorted({seed for p in papers for seed in results.seeds_of(p.results[p.results["group"] != "id"])}),
        "one_seed": any(s.n == 1 for name in overview.METRICS for s in rows[name] if s),
        "filters": filters, "cards": read_json(cards).get("cards", []) if cards else None,
        "metrics": [metric(m) for m in dict.fromkeys((*metrics, *overview.OOD_METRICS, "fpr95_ood",
                                                      *overview.ID_METRICS))],
        "costs": costs(papers), "published": published,
    }
