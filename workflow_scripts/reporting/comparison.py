"""Corrected against as released, wherever both ran: trainings, test sets, metric rules.

``compare`` of a paper's config says what to pair: ``trainings`` (each ``id``, ``network``, the path names ``corrected``
and ``released``, ``defects``), ``rules`` {paper: defect} whose metrics (``auroc@goe``) are the released ones, ``sets``
(defects whose test sets stand in groups such as ``far+2g-1``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from workflow_scripts.reporting.layout import Cell
from workflow_scripts.reporting.results import AVERAGE, Result
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
    def cells(self) -> tuple[Cell, Cell]:
        return Cell(self.metric, self.corrected), Cell(self.metric, self.released)

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


def compared(results: Sequence[Result], compare: dict[str, Any] | None) -> list[Compared]:
    """All rows, one metric after the other in each: those of :data:`METRICS`, then of :data:`ID_METRICS`."""
    if not compare:
        return []
    found: dict[tuple[str, ...], Seeds] = {}
    heads: dict[tuple[str, ...], list[str]] = {}
    for r in results:
        found[r.id, r.network, r.recipe, r.score, r.dataset, r.group, r.metric] = r.seeds
        if r.group == AVERAGE:
            sets = heads.setdefault((r.id, r.network, r.recipe, r.label, r.score), [])
            if r.dataset not in sets:
                sets.append(r.dataset)

    def seeds(head: tuple[str, ...], recipe: str, sets: str, name: str) -> Seeds | None:
        id, network, _, _, score = head
        if name.partition("@")[0] not in ID_METRICS:
            return found.get((id, network, recipe, score, sets, AVERAGE, name))
        return found.get((id, network, recipe, score, id, "id", name),
                         found.get((id, network, recipe, "", id, "id", name)))

    def row(defects: list[str], head: tuple[str, ...], sides: tuple[tuple[str, str, str], ...]) -> Compared:
        """``sides``: (recipe, average, ending of the metrics' names) of corrected and released."""
        id, network, _, label, score = head
        moved = sides[0][1] != sides[1][1]  # other sets: the ID task is the same
        pairs = [Pair(name, *(None if moved and name in ID_METRICS else seeds(head, recipe, sets, f"{name}{ending}")
                              for recipe, sets, ending in sides)) for name in (*METRICS, *ID_METRICS)]
        return Compared(", ".join(defects), id, network, label, score, sides[0][1],
                        tuple(p if p.released else Pair(p.metric, None, None) for p in pairs))

    rows = []
    for training in compare.get("trainings", []):
        key = training["id"], training["network"], training["corrected"]
        rows += [row(training["defects"], head, ((key[2], "all", ""), (training["released"], "all", "")))
                 for head in heads if head[:3] == key]
    for paper, defect in compare.get("rules", {}).items():
        rows += [row([defect], head, ((head[2], "all", ""), (head[2], "all", f"@{paper}"))) for head in heads]
    for defect in compare.get("sets", []):
        ending = f"+{defect.partition('.')[2]}"
        rows += [row([defect], head, ((head[2], sets, ""), (head[2], sets + ending, "")))
                 for head, there in heads.items() for sets in there if sets + ending in there]
    return [r for r in rows if any(p.released for p in r.pairs)]


def shown(rows: Sequence[Compared]) -> list[int]:
    """Positions of the pairs that some row has."""
    return [i for i in range(len(METRICS) + len(ID_METRICS)) if any(r.pairs[i].released for r in rows)]


def markdown(rows: Sequence[Compared], names: dict[str, str]) -> list[str]:
    """The table in Markdown: corrected → as released (difference); no line where nothing ran both ways."""
    if not rows:
        return []

    def name(key: str) -> str:
        return names.get(key, key).replace("|", r"\|")

    at = shown(rows)
    metrics = [rows[0].pairs[i].metric for i in at]
    lines = ["### Corrected and as released", "",
             "Corrected → as released (difference over the seeds that both have). What a defect does: docs/config.md.",
             "", "| Defect | ID set, network | Training | Score | OOD sets | "
             + " | ".join(f"{metric(m).label} {metric(m).arrow}".strip() for m in metrics) + " |",
             "|:--|:--|:--|:--|:--|" + "--:|" * len(at)]
    for r in rows:
        cells = [f"{a.text} → {b.text} ({p.text})" if p.released else "" for p in (r.pairs[i] for i in at)
                 for a, b in [p.cells]]
        lines.append("| " + " | ".join([r.defects, f"{name(r.id)}, {name(r.network)}", name(r.label), name(r.score),
                                        name(r.sets), *cells]) + " |")
    return [*lines, ""]
