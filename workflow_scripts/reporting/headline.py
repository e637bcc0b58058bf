"""The headline table as text for a terminal; read when a run ends, so without pandas."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from workflow_scripts.reporting.statistics import metric

SHOWN = ("auroc", "fpr95", "accuracy")


def terminal(path: str | Path, names: Mapping[str, str], width: int = 0) -> str:
    """The headline rows over all OOD sets of an overview's CSV; ``width``: cut there, 0 = as it needs."""
    with open(path, encoding="utf-8", newline="") as file:
        chosen = [r for r in csv.DictReader(file) if r["headline"] == "yes" and r["sets"] == "all"]
    table = [["training", "score", "ID set, network", *(metric(m).label for m in SHOWN)]]
    for row in chosen:
        words = {key: names.get(row[key], row[key]) for key in ("training", "score", "id", "network")}
        table.append([words["training"], words["score"], f"{words['id']}, {words['network']}",
                      *(_number(row, name) for name in SHOWN)])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines: list[str] = []
    papers = ["", *(row["paper"] for row in chosen)]
    for i, line in enumerate(table):
        if papers[i] not in papers[:i]:
            lines.append(papers[i])
        cells = [word.ljust(w) if k < 3 else word.rjust(w)
                 for k, (word, w) in enumerate(zip(line, widths, strict=True))]
        lines.append(f"  {'  '.join(cells)}".rstrip()[:width or None])
    return "\n".join(lines[1:])  # no paper stands above the heads


def _number(row: Mapping[str, str], name: str) -> str:
    mean, std = row[f"{name}_mean"], row[f"{name}_std"]
    if not mean:
        return "missing"
    scale = metric(name).scale
    return f"{float(mean) * scale:.1f}" + (f" ± {float(std) * scale:.1f}" if std else "")
