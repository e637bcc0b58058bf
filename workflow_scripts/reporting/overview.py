"""The overview: a row per paper, ID set, network, training, score and average over OOD sets."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from workflow_scripts.core.files import atomic
from workflow_scripts.reporting import latex
from workflow_scripts.reporting.layout import Cell
from workflow_scripts.reporting.results import AVERAGE, Result
from workflow_scripts.reporting.statistics import best, metric

OOD_METRICS = ("fpr95", "auroc", "aupr_in")
ID_METRICS = ("accuracy", "aurc")
METRICS = (*OOD_METRICS, *ID_METRICS)
HEADER = ["paper", "id", "network", "training", "score", "sets", "headline", "n",
          *(f"{m}_{part}" for m in METRICS for part in ("mean", "std"))]


@dataclass(frozen=True)
class Row:
    """One score of one training, averaged over ``sets`` (``near``, ``far``, ``all``)."""

    key: str
    """Name of the paper."""
    paper: str
    """Its title."""
    anchor: str
    id: str
    network: str
    label: str
    score: str
    sets: str
    cells: tuple[Cell, ...]
    headline: bool
    """Whether it is the score that the paper is about, or the first where it lacks that one."""

    @property
    def n(self) -> int:
        """Seeds with a number."""
        return max((cell.seeds.n for cell in self.cells if cell.seeds), default=0)


def rows(key: str, title: str, anchor: str, results: Sequence[Result], headline: str = "") -> list[Row]:
    """A paper's rows; best among those of the same network and sets. Test sets as released are left out."""
    found = {(*r.network_key, r.recipe, r.score, r.dataset, r.group, r.metric): r.seeds for r in results}
    heads: dict[tuple[str, ...], dict[tuple[str, ...], None]] = {}
    for r in results:
        if r.group == AVERAGE and not r.other_sets:
            heads.setdefault((r.id, r.network, r.dataset), {})[r.recipe, r.label, r.score] = None
    made: list[Row] = []
    for (id, network, sets), methods in heads.items():
        grid = [[found.get((id, network, recipe, score, sets, AVERAGE, m)) for m in OOD_METRICS]
                + [found.get((id, network, recipe, score, id, "id", m),
                             found.get((id, network, recipe, "", id, "id", m))) for m in ID_METRICS]
                for recipe, _, score in methods]
        marks = [best([line[j] for line in grid], metric(m)) for j, m in enumerate(METRICS)]
        marks[METRICS.index("accuracy")] = set()  # scores of one network share it
        scores = [score for _, _, score in methods]
        first = headline if headline in scores else scores[0]
        made += [Row(key, title, anchor, id, network, label, score, sets,
                     tuple(Cell(m, line[j], k in marks[j]) for j, m in enumerate(METRICS)), score == first)
                 for k, ((_, label, score), line) in enumerate(zip(methods, grid, strict=True))]
    return made


def write_csv(path: str | Path, overview: Iterable[Row]) -> None:
    """Fractions with all their digits; empty where there is no number, NaN, or one seed (std)."""
    with atomic(path) as partial, open(partial, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        for r in overview:
            numbers = [v for c in r.cells for v in ((c.seeds.mean, c.seeds.std) if c.seeds else (None, None))]
            writer.writerow([r.paper, r.id, r.network, r.label, r.score, r.sets, "yes" if r.headline else "no", r.n,
                             *("" if v is None else repr(v) for v in numbers)])


def _heads() -> list[str]:
    return ["Paper", "ID set", "Network", "Training", "Score", "OOD sets",
            *(f"{metric(m).label} {metric(m).arrow}" for m in METRICS), "n"]


def _words(row: Row, names: dict[str, str]) -> list[str]:
    return [row.key, *(names.get(x, x) for x in (row.id, row.network, row.label, row.score, row.sets))]


def markdown(overview: Sequence[Row], names: dict[str, str]) -> str:
    """The overview in Markdown."""
    def bar(text: str) -> str:
        return text.replace("|", r"\|")

    lines = ["| " + " | ".join(_heads()) + " |", "|" + ":--|" * 6 + "--:|" * (len(METRICS) + 1)]
    for r in overview:
        cells = [f"**{c.text}**" if c.best else c.text for c in r.cells]
        lines.append("| " + " | ".join([*map(bar, _words(r, names)), *cells, str(r.n)]) + " |")
    return "\n".join([*lines, ""])


def tex(overview: Sequence[Row], names: dict[str, str]) -> str:
    """The overview in LaTeX."""
    body = [[*map(latex.escape, _words(r, names)), *map(latex.number, r.cells), str(r.n)] for r in overview]
    head = [" & ".join(map(latex.escape, _heads())) + r" \\"]
    return latex.page("Overview", [latex.environment("Averages over OOD sets, mean ± sample standard deviation over n "
                                                     "seeds.", "llllll" + "r" * (len(METRICS) + 1), head, body)])


def terminal(path: str | Path, names: dict[str, str] | None = None, width: int = 0) -> str:
    """The headline rows over all OOD sets of an overview's CSV, as text for a terminal; ``width``: 0 = as it needs."""
    names = names or {}
    with open(path, encoding="utf-8", newline="") as file:
        chosen = [r for r in csv.DictReader(file) if r["headline"] == "yes" and r["sets"] == "all"]

    def number(row: dict[str, str], name: str) -> str:
        mean, std = row[f"{name}_mean"], row[f"{name}_std"]
        if not mean:
            return "missing"
        scale = metric(name).scale
        return f"{float(mean) * scale:.1f}" + (f" ± {float(std) * scale:.1f}" if std else "")

    shown = ("auroc", "fpr95", "accuracy")
    table = [["training", "score", "ID set, network", *(metric(m).label for m in shown)]]
    papers: dict[int, str] = {}
    for row in chosen:
        if row["paper"] not in papers.values():
            papers[len(table)] = row["paper"]
        table.append([names.get(row["training"], row["training"]), names.get(row["score"], row["score"]),
                      f"{names.get(row['id'], row['id'])}, {names.get(row['network'], row['network'])}",
                      *(number(row, m) for m in shown)])
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    pads: list[Callable[[str, int], str]] = [str.ljust] * 3 + [str.rjust] * len(shown)
    lines = []
    for i, line in enumerate(table):
        if i in papers:
            lines.append(papers[i])
        text = "  " + "  ".join(pad(word, w) for pad, word, w in zip(pads, line, widths, strict=True)).rstrip()
        lines.append(text[:width] if width else text)
    return "\n".join(lines)
