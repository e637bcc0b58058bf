"""The results page: what the template needs, from the tidy tables, figures, cards and manifests of a run."""

from __future__ import annotations

import base64
import html
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflow_scripts.errors import OODError
from workflow_scripts.reporting import comparison, layout, results
from workflow_scripts.reporting.inputs import need
from workflow_scripts.reporting.layout import Cell
from workflow_scripts.reporting.results import AVERAGE, Result
from workflow_scripts.reporting.statistics import best, metric

OVERVIEW_OOD = ("auroc", "fpr95", "aupr_in")
OVERVIEW_ID = ("accuracy", "aurc")


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
class OverviewRow:
    """One paper x ID x network x method x average over sets."""

    paper: str
    anchor: str
    id: str
    network: str
    label: str
    score: str
    sets: str
    cells: tuple[Cell, ...]

    @property
    def n(self) -> int:
        return max((cell.seeds.n for cell in self.cells if cell.seeds), default=0)


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
    below: list[BelowChance]
    gaps: list[str]
    downloads: list[tuple[str, str]]
    manifest: dict[str, Any] | None
    results: list[Result]


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
    table, markdown, manifest = (here(entry.get(key)) for key in ("csv", "md", "manifest"))
    rows = results.read_csv(table) if table else []
    figures = [(path, here(path)) for path in entry.get("figures", [])]
    gaps = [] if table else ["no table: none of its runs has finished"]
    gaps += [] if not table or rows else ["its table is empty: no run is listed"]
    gaps += [f"figure {Path(path).name} is not there" for path, found in figures if found is None]
    gaps += [] if manifest else ["no manifest, so its provenance is not known"]
    name = need(entry, "name", str, where)
    return Paper(
        anchor="paper-" + re.sub(r"\W+", "-", name), title=need(entry, "title", str, where),
        about=paragraphs(entry.get("about", "")), reference=entry.get("reference", ""),
        tables=layout.tables(rows, entry.get("metrics", results.DEFAULT_METRICS),
                             entry.get("id_metrics", results.DEFAULT_ID_METRICS)),
        figures=[figure(found) for _, found in figures if found],
        compared=comparison.compared(rows, entry.get("compare")),
        below=below_chance(rows, names, notes), gaps=gaps + results.gaps(rows),
        downloads=[(path.name, base64.b64encode(path.read_bytes()).decode("ascii"))
                   for path in (table, markdown) if path],
        manifest=read_json(manifest) if manifest else None, results=rows)


def overview(papers: list[Paper]) -> list[OverviewRow]:
    """One row per paper, ID, network, recipe, score and average; best among rows of the same network and sets."""
    rows: list[OverviewRow] = []
    for p in papers:
        found = {(*r.network_key, r.recipe, r.score, r.dataset, r.group, r.metric): r.seeds for r in p.results}
        heads: dict[tuple[str, ...], dict[tuple[str, ...], None]] = {}
        for r in p.results:
            if r.group == AVERAGE and not r.other_sets:
                heads.setdefault((r.id, r.network, r.dataset), {})[r.recipe, r.label, r.score] = None
        for (id_name, network, sets), methods in heads.items():
            key = (id_name, network)
            grid = [[found.get((*key, recipe, score, sets, AVERAGE, m)) for m in OVERVIEW_OOD]
                    + [found.get((*key, recipe, score, id_name, "id", m),
                                 found.get((*key, recipe, "", id_name, "id", m))) for m in OVERVIEW_ID]
                    for recipe, _, score in methods]
            shown = (*OVERVIEW_OOD, *OVERVIEW_ID)
            marks = [best([line[j] for line in grid], metric(m)) for j, m in enumerate(shown)]
            marks[shown.index("accuracy")] = set()  # scores of one network share it
            rows += [OverviewRow(p.title, p.anchor, *key, label, score, sets,
                                 tuple(Cell(m, line[j], k in marks[j]) for j, m in enumerate(shown)))
                     for k, ((_, label, score), line) in enumerate(zip(methods, grid, strict=True))]
    return rows


def context(config: dict[str, Any]) -> dict[str, Any]:
    """All that the template shows."""
    names, notes = config.get("names", {}), config.get("notes", {})
    papers = [paper(entry, f"config.papers[{i}]", names, notes)
              for i, entry in enumerate(need(config, "papers", list, "config"))]
    cards = here(config.get("cards"))
    rows = overview(papers)
    shown = dict.fromkeys(m for p in papers for t in p.tables for c in t.columns for m in c.metrics)
    shown |= dict.fromkeys((*OVERVIEW_OOD, "fpr95_ood", *OVERVIEW_ID))
    seeds = sorted({seed for p in papers for t in p.tables for seed in t.seeds})
    return {
        "title": need(config, "title", str, "config"), "variant": need(config, "variant", str, "config"),
        "small": bool(config.get("small", False)), "about": paragraphs(config.get("about", "")), "names": names,
        "papers": papers, "rows": rows, "overview_metrics": (*OVERVIEW_OOD, *OVERVIEW_ID), "seeds": seeds,
        "one_seed": any(cell.seeds and cell.seeds.n == 1 for row in rows for cell in row.cells),
        "same": {key: len({getattr(r, key) for r in rows}) < 2 for key in ("id", "network")},
        "filters": [("paper", "Paper", list(dict.fromkeys(r.paper for r in rows))),
                    ("id", "ID set", list(dict.fromkeys(r.id for r in rows))),
                    ("network", "Network", list(dict.fromkeys(r.network for r in rows))),
                    ("sets", "Mean of OOD sets", sorted({r.sets for r in rows}, key=lambda s: (s != "all", s)))],
        "cards": read_json(cards).get("cards", []) if cards else None,
        "metrics": [metric(m) for m in shown], "metric": metric, "heading": layout.heading,
        "counts": layout.counts, "average": AVERAGE, "shown": comparison.shown,
    }
