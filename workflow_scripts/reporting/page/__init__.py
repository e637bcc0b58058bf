"""The results page: what the template needs, from the tidy tables, figures, cards and manifests of a run."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflow_scripts.core.errors import OODError
from workflow_scripts.reporting import comparison, layout, overview, published, results
from workflow_scripts.reporting.inputs import need
from workflow_scripts.reporting.layout import Cell
from workflow_scripts.reporting.results import AVERAGE, Result
from workflow_scripts.reporting.statistics import metric

STAGES = {"data": "prepare datasets", "lmdb": "pack archives", "models": "train networks", "masks": "label maps",
          "features": "extract features", "precompute": "statistics of features", "scores": "score",
          "sweep": "choose options of scores", "choice": "choose networks", "selection": "choose outliers",
          "distances": "measure outliers", "metrics": "metrics", "tables": "tables", "figures": "figures",
          "cards": "dataset cards"}
"""Folders of benchmark files, in words."""


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
class Stage:
    """What one kind of job cost; ``seconds`` and ``peak_mb`` of those that were measured."""

    name: str
    count: int
    seconds: list[float]
    peak_mb: list[float]
    jobs: list[dict[str, Any]]


@dataclass(frozen=True)
class Paper:
    """One paper's section."""

    anchor: str
    title: str
    about: list[str]
    reference: str
    tables: list[layout.Table]
    figures: list[Figure]
    compared: list[comparison.Compared]
    published: list[published.Number]
    below: list[BelowChance]
    gaps: list[str]
    downloads: list[tuple[str, str]]
    manifest: dict[str, Any] | None
    results: list[Result]
    rows: list[overview.Row]


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


def below_chance(rows: list[Result], names: dict[str, str], notes: dict[str, str]) -> list[BelowChance]:
    """The OOD sets on which some score's mean AUROC is below 0.5, worst first within a set."""
    found: dict[str, list[Result]] = {}
    for r in rows:
        if r.metric == "auroc" and r.group != AVERAGE and not r.other_sets and r.seeds.n and r.seeds.mean < 0.5:
            found.setdefault(r.dataset, []).append(r)
    networks = {r.network_key for r in rows}

    def where(r: Result) -> str:
        parts = [r.label] if len(networks) == 1 else [r.label, r.network, r.id]
        return ", ".join(names.get(part, part) for part in parts)

    return [BelowChance(dataset, [(where(r), r.score, Cell("auroc", r.seeds).text)
                                  for r in sorted(items, key=lambda r: r.seeds.mean)], notes.get(dataset, ""))
            for dataset, items in found.items()]


def paper(entry: dict[str, Any], where: str, names: dict[str, str], notes: dict[str, str]) -> Paper:
    """A paper's section from its config entry; files that are not there are listed as gaps."""
    table, markdown, tex, known, manifest = (here(entry.get(key))
                                             for key in ("csv", "md", "tex", "published", "manifest"))
    rows = results.read_csv(table) if table else []
    figures = [(path, here(path)) for path in entry.get("figures", [])]
    gaps = [] if table else ["no table: none of its runs has finished"]
    gaps += [] if not table or rows else ["its table is empty: no run is listed"]
    gaps += [f"figure {Path(path).name} is not there" for path, found in figures if found is None]
    gaps += [] if manifest else ["no manifest, so its provenance is not known"]
    key = need(entry, "name", str, where)
    files = [(path.name if path else "", path) for path in (table, markdown, tex)]
    files.append((f"{key}.published.csv" if known else "", known))
    anchor, title = "paper-" + re.sub(r"\W+", "-", key), need(entry, "title", str, where)
    return Paper(
        anchor=anchor, title=title,
        about=paragraphs(entry.get("about", "")), reference=entry.get("reference", ""),
        tables=layout.tables(rows, entry.get("metrics", results.DEFAULT_METRICS),
                             entry.get("id_metrics", results.DEFAULT_ID_METRICS)),
        figures=[figure(found) for _, found in figures if found],
        compared=comparison.compared(rows, entry.get("compare")),
        published=published.read_csv(known) if known else [],
        below=below_chance(rows, names, notes), gaps=gaps + results.gaps(rows),
        downloads=[(name, base64.b64encode(path.read_bytes()).decode("ascii")) for name, path in files if path],
        manifest=read_json(manifest) if manifest else None, results=rows,
        rows=overview.rows(key, title, anchor, rows, entry.get("headline", "")))


def costs(papers: Iterable[Paper]) -> list[Stage]:
    """Cost by stage, over all jobs that any manifest has."""
    jobs = {job["job"]: job for p in papers for job in (p.manifest or {}).get("stages", [])}
    stages: dict[str, list[dict[str, Any]]] = {}
    for name, job in jobs.items():
        stages.setdefault(name.partition("/")[0], []).append(job)
    return [Stage(STAGES.get(name, name), len(rows), [r["seconds"] for r in rows if r["seconds"] is not None],
                  [r["peak_mb"] for r in rows if r["peak_mb"] is not None], sorted(rows, key=lambda r: r["job"]))
            for name, rows in sorted(stages.items(), key=lambda item: -sum(r["seconds"] or 0 for r in item[1]))]


def context(config: dict[str, Any]) -> dict[str, Any]:
    """All that the template shows."""
    names, notes = config.get("names", {}), config.get("notes", {})
    papers = [paper(entry, f"config.papers[{i}]", names, notes)
              for i, entry in enumerate(need(config, "papers", list, "config"))]
    cards = here(config.get("cards"))
    rows = [row for p in papers for row in p.rows]
    shown = dict.fromkeys(m for p in papers for t in p.tables for c in t.columns for m in c.metrics)
    shown |= dict.fromkeys((*overview.OOD_METRICS, "fpr95_ood", *overview.ID_METRICS))
    seeds = sorted({seed for p in papers for t in p.tables for seed in t.seeds})
    return {
        "title": need(config, "title", str, "config"), "variant": need(config, "variant", str, "config"),
        "small": bool(config.get("small", False)), "about": paragraphs(config.get("about", "")), "names": names,
        "papers": papers, "rows": rows, "overview_metrics": overview.METRICS, "seeds": seeds,
        "one_seed": any(cell.seeds and cell.seeds.n == 1 for row in rows for cell in row.cells),
        "same": {key: len({getattr(r, key) for r in rows}) < 2 for key in ("id", "network")},
        "filters": [("paper", "Paper", list(dict.fromkeys(r.paper for r in rows))),
                    ("id", "ID set", list(dict.fromkeys(r.id for r in rows))),
                    ("network", "Network", list(dict.fromkeys(r.network for r in rows))),
                    ("sets", "Mean of OOD sets", sorted({r.sets for r in rows}, key=lambda s: (s != "all", s)))],
        "cards": read_json(cards).get("cards", []) if cards else None,
        "metrics": [metric(m) for m in shown], "metric": metric, "heading": layout.heading,
        "counts": layout.counts, "average": AVERAGE, "shown": comparison.shown, "costs": costs(papers),
        "printed": published.cells, "heads": published.HEADS, "summary": published.summary,
    }
