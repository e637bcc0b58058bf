"""Two result folders: which numbers changed, by how much, and whether that is more than the noise of seeds.

    uv run python -m workflow_scripts.compare results/small /elsewhere/results/small
    uv run python -m workflow_scripts.compare A B --top 0      every change, not only the 20 largest of each paper
    uv run python -m workflow_scripts.compare A B --exact      any difference counts, also one within the noise

Compares the tables of all papers, and what their manifests say of configuration, code and packages. Differences are B
less A in the unit of the tables (percent; AURC times 1000). Noise: twice the larger standard deviation over seeds, at
least 0.1; with one seed it is not known.

Exit status: 0 nothing differs by more than seed noise (with --exact: at all); 1 the folders cannot be compared; 2
something does, its noise is not known, or a number is on one side only.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from workflow_scripts.core.commands import described
from workflow_scripts.core.errors import OODError, stage
from workflow_scripts.reporting.results import AVERAGE
from workflow_scripts.reporting.statistics import Seeds, metric, noise, show
from workflow_scripts.results import tables

MORE, WITHIN, UNKNOWN, APPEARED, GONE = "more than noise", "within noise", "one seed, noise not known", "only in B", (
    "only in A")
ORDER = (MORE, UNKNOWN, APPEARED, GONE, WITHIN)
KEY = ["id", "network", "recipe", "score", "dataset", "group", "metric"]
PROVENANCE = ("config", "code", "packages", "git", "hardware", "seeds")


@dataclass(frozen=True)
class Change:
    """One number that is not the same in both folders."""

    where: str
    metric: str
    before: Seeds | None
    after: Seeds | None

    @property
    def difference(self) -> float | None:
        """B less A in the unit of print; ``None`` where a side has no number."""
        if not (self.before and self.after and self.before.n and self.after.n):
            return None
        return (self.after.mean - self.before.mean) * metric(self.metric).scale

    @property
    def kind(self) -> str:
        """Which of :data:`ORDER`."""
        there = [bool(seeds and seeds.n) for seeds in (self.before, self.after)]
        if there != [True, True]:
            return GONE if there[0] else APPEARED
        measure = metric(self.metric)
        limit = noise(self.before, self.after, measure.tie)
        if limit is None:
            return UNKNOWN
        return MORE if round(abs(self.after.mean - self.before.mean), 12) > limit else WITHIN

    def __str__(self) -> str:
        texts = [show(seeds, self.metric) for seeds in (self.before, self.after)]
        by = "" if self.difference is None else f" ({self.difference:+.2f})"
        return f"{self.where}, {metric(self.metric).label}: {texts[0]} -> {texts[1]}{by}"


def changes(before: pd.DataFrame, after: pd.DataFrame) -> list[Change]:
    """Numbers that differ between two tables of a paper; by kind, then by size."""
    sides = [rows.set_index(KEY)["seeds"].to_dict() for rows in (before, after)]
    found = []
    for key in dict.fromkeys([*sides[0], *sides[1]]):
        a, b = (side.get(key) for side in sides)
        if (a.finite if a else []) != (b.finite if b else []):
            id, network, recipe, score, dataset, group, name = key
            sets = f"mean of {dataset}" if group == AVERAGE else dataset
            found.append(Change(" / ".join(filter(None, (id, network, recipe, score, sets))), name, a, b))
    return sorted(found, key=lambda c: (ORDER.index(c.kind), -abs(c.difference or 0.0)))


def flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every leaf of nested mappings and lists; entries of lists by their name where they have one."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from flat(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for i, item in enumerate(value):
            name = item.get("name", i) if isinstance(item, dict) else i
            yield from flat(item, f"{path}[{name}]")
    else:
        yield path, json.dumps(value)


def provenance(a: Path, b: Path) -> list[str]:
    """What the manifests of a paper say differently; a line where one is not there."""
    if not (a.is_file() and b.is_file()):
        return [f"{path}: not there" for path in (a, b) if not path.is_file()]
    sides = []
    for path in (a, b):
        try:
            sides.append(dict(flat({k: v for k, v in json.loads(path.read_text("utf-8")).items() if k in PROVENANCE})))
        except (ValueError, AttributeError) as error:
            raise OODError(f"{path}: expected a JSON mapping, found an error in it ({error}); delete it and run again"
                           ) from None
    return [f"{key}: {sides[0].get(key, 'none')} -> {sides[1].get(key, 'none')}"
            for key in sorted(sides[0].keys() | sides[1].keys()) if sides[0].get(key) != sides[1].get(key)]


def compare(a: Path, b: Path, top: int, exact: bool) -> tuple[str, int]:
    """The text, and the exit status that says whether something counts as changed."""
    sides = tables(a), tables(b)
    lines, status = [f"A: {a}", f"B: {b}"], 0

    def listed(items: Sequence[Any]) -> list[str]:
        shown = [f"    {item}" for item in items[:top or None]]
        more = len(items) - len(shown)
        return shown + ([f"    and {more} more (--top 0 shows all)"] if more else [])

    for paper in dict.fromkeys([*sides[0], *sides[1]]):
        lines += ["", paper]
        if paper not in sides[0] or paper not in sides[1]:
            lines.append(f"  {APPEARED if paper in sides[1] else GONE}")
            status = 2
            continue
        found = changes(sides[0][paper], sides[1][paper])
        total = len(pd.concat([sides[0][paper][KEY], sides[1][paper][KEY]]).drop_duplicates())
        lines.append(f"  {total} numbers, {total - len(found)} the same")
        for kind in ORDER:
            chosen = [c for c in found if c.kind == kind]
            if chosen:
                lines += [f"  {len(chosen)} {kind}:", *listed(chosen)]
                status = 2 if kind != WITHIN or exact else status
        name = Path("tables") / f"{paper}.manifest.json"
        if differences := provenance(a / name, b / name):
            lines += [f"  {len(differences)} differences of provenance:", *listed(differences)]
    lines += ["", {0: "Nothing differs by more than seed noise." if not exact else "Nothing differs.",
                   2: "Something differs by more than seed noise, or that cannot be said." if not exact else
                      "Something differs."}[status]]
    return "\n".join(lines), status


def parser() -> argparse.ArgumentParser:
    words = described(__spec__, __doc__)
    words.add_argument("a", type=Path, metavar="A", help="a result folder, e.g. results/small")
    words.add_argument("b", type=Path, metavar="B", help="another one")
    words.add_argument("--top", type=int, default=20, help="how many lines of each kind; 0: all")
    words.add_argument("--exact", action="store_true", help="any difference counts")
    return words


@stage
def main(argv: list[str] | None = None) -> None:
    """Entry point; leaves with the exit status above."""
    args = parser().parse_args(argv)
    text, status = compare(args.a, args.b, args.top, args.exact)
    print(text)
    sys.exit(status)


if __name__ == "__main__":
    main()
