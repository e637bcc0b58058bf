"""Which score leads, by how much, and whether that is more than chance: paired 95 % intervals of a paper's runs.

Score files -> a frame with the columns :data:`HEADER`. A row is the interval of one detector (a training's score), with
empty ``other`` columns, or of the leader's difference from another. ``over`` is ``images`` (``seed`` says of which
network) or ``seeds``; ``n`` is the number of seeds behind the row.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workflow_scripts.core.errors import OODError
from workflow_scripts.metrics import paired
from workflow_scripts.metrics.paired import Components, Interval, Values
from workflow_scripts.reporting.curves import read_scores
from workflow_scripts.reporting.inputs import Run
from workflow_scripts.reporting.layout import Cell, Column, Table, Tests, heading, label, table
from workflow_scripts.reporting.results import AVERAGE, averaged_groups, read_frame
from workflow_scripts.reporting.statistics import metric as described

PLACE = ["id", "network", "dataset", "group", "metric"]
DETECTORS = ["recipe", "score", "other_recipe", "other_score"]
NUMBERS = ["estimate", "low", "high", "p"]
HEADER = [*PLACE, "over", "seed", *DETECTORS, *NUMBERS, "n"]
METRICS = {"auroc": True, "fpr95": False}
"""Whether higher is better."""
Detector = tuple[str, str]
"""Recipe and score."""


@dataclass(frozen=True)
class Scored:
    """One score of one trained network: ID scores (N,), and those of each OOD set (M,) with the AUROC's components."""

    id: Values
    sets: dict[str, Values]
    parts: dict[str, Components]

    def side(self, names: Sequence[str]) -> tuple[Values, list[Values]]:
        """Its scores on these sets, as the bootstrap takes them."""
        return self.id, [self.sets[name] for name in names]

    def sizes(self, names: Sequence[str]) -> list[int]:
        """Images of the ID set and of these sets; scores of other images cannot be paired."""
        return [self.id.size, *(self.sets[name].size for name in names)]

    def components(self, names: Sequence[str]) -> Components:
        """Of the mean over these sets."""
        return paired.average([self.parts[name] for name in names])

    def value(self, metric: str, names: Sequence[str]) -> float:
        """The mean of a metric over these sets."""
        if metric == "auroc":
            return self.components(names).auroc
        return paired.fpr95_value(*self.side(names))


def compared(runs: Sequence[Run], draws: int = paired.DRAWS) -> pd.DataFrame:
    """All intervals of a paper's runs.

    Args:
        runs: with the path of each score file; one that is not there is left out.
        draws: resamples behind an interval of FPR95.

    Returns:
        The columns :data:`HEADER`; scores of other images than the leader's, as another tool's may be, have no row
        with it.

    Raises:
        OODError: a score file cannot be read, or has fewer than two images of a set.
    """
    places: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        places.setdefault((run.id, run.network), []).append(run)
    rows = [(*place, *row) for place, of in places.items() for row in _network(of, draws)]
    return pd.DataFrame(rows, columns=HEADER)


def _network(runs: Sequence[Run], draws: int) -> Iterator[tuple]:
    """The rows of one ID set and network, without these two."""
    scored = _read(runs)
    groups: dict[str, dict[str, None]] = {}
    for run in runs:
        for group, names in run.groups.items():
            groups.setdefault(group, {}).update(dict.fromkeys(names))
    for dataset, group, names in _columns(groups):
        there = {detector: {seed: one for seed, one in seeds.items() if set(names) <= set(one.sets)}
                 for detector, seeds in scored.items()}
        for metric in METRICS:
            for row in _column(metric, names, {d: seeds for d, seeds in there.items() if seeds}, draws):
                yield (dataset, group, metric, *row)


def _read(runs: Sequence[Run]) -> dict[Detector, dict[int, Scored]]:
    """Detector -> seed -> its scores."""
    found: dict[Detector, dict[int, Scored]] = {}
    for run in runs:
        wanted = [name for names in run.groups.values() for name in names]
        for score, path in run.scores.items() if isinstance(run.scores, dict) else ():
            if not path or not Path(path).is_file():
                continue
            id_scores, sets = read_scores(path, run.id)
            kept = {name: sets[name] for name in wanted if name in sets}
            try:
                parts = {name: paired.components(id_scores, [values]) for name, values in kept.items()}
            except OODError as error:
                raise OODError(f"{path}: {error}") from None
            found.setdefault((run.recipe, score), {})[run.seed] = Scored(id_scores, kept, parts)
    return found


def _columns(groups: Mapping[str, Mapping[str, None]]) -> list[tuple[str, str, list[str]]]:
    """(set, group, sets behind it) of each column of a table: sets, averages of groups, and of all."""
    columns = [(name, group, [name]) for group, names in groups.items() for name in names]
    averages = {group: list(names) for group, names in groups.items()} | {
        name: [one for group in of for one in groups[group]] for name, of in averaged_groups(list(groups)).items()}
    return columns + [(name, AVERAGE, of) for name, of in averages.items() if of]


def _column(metric: str, names: Sequence[str], scored: Mapping[Detector, Mapping[int, Scored]],
            draws: int) -> Iterator[tuple]:
    """Intervals of one column: each detector's own, then the leader's lead over the others."""
    values = {d: {seed: one.value(metric, names) for seed, one in seeds.items()} for d, seeds in scored.items()}
    for detector, seeds in scored.items():
        for seed, one in seeds.items():
            own = (paired.auroc_interval(one.components(names)) if metric == "auroc" else
                   paired.fpr95_interval(*one.side(names), _rng(metric, names, seed, detector), draws))
            yield _row("images", seed, detector, ("", ""), own, 1)
    sign = 1 if METRICS[metric] else -1
    leader = max(values, key=lambda d: sign * float(np.mean(list(values[d].values()))), default=("", ""))
    for other in [d for d in scored if d != leader]:
        common = [seed for seed, one in scored[leader].items()
                  if seed in scored[other] and one.sizes(names) == scored[other][seed].sizes(names)]
        for seed in common:
            apart = _apart(metric, names, scored[leader][seed], scored[other][seed],
                           _rng(metric, names, seed, (*leader, *other)), draws)
            yield _row("images", seed, leader, other, apart, 1)
        if len(common) > 1:
            apart = paired.over_seeds([values[leader][seed] - values[other][seed] for seed in common])
            yield _row("seeds", "", leader, other, apart, len(common))


def _apart(metric: str, names: Sequence[str], first: Scored, second: Scored, rng: np.random.Generator,
           draws: int) -> Interval:
    """The difference of two scores over images."""
    if metric == "auroc":
        return paired.auroc_difference(first.components(names), second.components(names))
    return paired.fpr95_difference(first.side(names), second.side(names), rng, draws)


def _row(over: str, seed: int | str, detector: Detector, other: Detector, found: Interval, n: int) -> tuple:
    return over, seed, *detector, *other, found.estimate, found.low, found.high, found.p, n


def _rng(*of: object) -> np.random.Generator:
    """Resamples that depend on what is compared alone, not on what else is."""
    return np.random.default_rng(zlib.crc32(repr(of).encode()))


def read(path: str | Path) -> pd.DataFrame:
    """The file of :func:`compared`.

    Raises:
        OODError: another header, or a number that cannot be read.
    """
    mend = "make it with python -m workflow_scripts.stages.compare_scores"
    frame = read_frame(path, HEADER, mend)
    try:
        return frame.assign(**{name: pd.to_numeric(frame[name]) for name in [*NUMBERS, "n"]})
    except (TypeError, ValueError) as error:
        raise OODError(f"{path}: expected numbers in {', '.join(NUMBERS)} and n ({error}); {mend}") from None


def leads(intervals: pd.DataFrame, over: str) -> dict[tuple[str, ...], Detector | None]:
    """Which detector is better than each other one, by the paired tests over ``images`` or ``seeds``.

    It must lead each other significantly (two-sided, p at most 0.05), over images for each seed's network. That it
    beats all of them is one claim, which holds only where each of its tests does, so the level needs no correction
    for their number.

    Returns:
        Columns by :data:`PLACE` where there is a test -> the detector, or None where none is clearly best.
    """
    found: dict[tuple[str, ...], Detector | None] = {}
    for place, rows in intervals.groupby(PLACE, sort=False):
        pairs = rows[(rows["over"] == over) & (rows["other_score"] != "")]
        if pairs.empty:
            continue
        sign = 1 if METRICS[place[-1]] else -1
        leader = (pairs["recipe"].iloc[0], pairs["score"].iloc[0])
        others = set(rows.loc[rows["other_score"] == "", ["recipe", "score"]].itertuples(index=False, name=None))
        tested = set(pairs[["other_recipe", "other_score"]].itertuples(index=False, name=None))
        clear = (pairs["p"] <= paired.ALPHA) & (sign * pairs["estimate"] > 0)
        found[place] = leader if clear.all() and tested >= others - {leader} else None
    return found


def tests(intervals: pd.DataFrame | None, over: str) -> Tests | None:
    """:func:`leads` for a table; ``None`` where there are no intervals."""
    return None if intervals is None else Tests(over, leads(intervals, over))


def laid_out(intervals: pd.DataFrame | None, names: Mapping[str, str]) -> list[Table]:
    """A table for each ID set and network: how far the leader of each column is ahead of the next best, over images and
    over seeds."""
    if intervals is None:
        return []
    found = []
    for (id, network), rows in intervals.groupby(["id", "network"], sort=False):
        lines = [_line(place[2:], of, names) for place, of in rows.groupby(PLACE, sort=False)
                 if (of["other_score"] != "").any()]
        if lines:
            title = f"{names.get(id, id)}, {names.get(network, network)}: how far the best leads"
            heads = ("OOD set", "Metric", "Best", "Next best", "Difference over images", "Difference over seeds")
            columns = {Column(head, style="prose" if "over" in head else "", numbers=False): list(cells)
                       for head, cells in zip(heads, zip(*lines, strict=True), strict=True)}
            found.append(table(title, f"{title}. {SAYS}", columns, before=(SAYS,)))
    return found


SAYS = ("Best less next best by the mean over seeds, in percentage points, with the 95 % interval of the paired "
        "difference [in brackets] and the two-sided p. Over images: each seed's network as it is, other images (DeLong "
        "for AUROC, the bootstrap for FPR95). Over seeds: the images as they are, other trainings (Student's t, paired "
        "by seed).")


def _line(place: tuple[str, ...], rows: pd.DataFrame, names: Mapping[str, str]) -> list[Cell | str]:
    """The cells of one column of results: what leads, what comes next, by how much."""
    dataset, group, metric = place
    sign = 1 if METRICS[metric] else -1
    pairs = rows[rows["other_score"] != ""]
    images = pairs[pairs["over"] == "images"]
    behind = (sign * images["estimate"]).groupby([images["other_recipe"], images["other_score"]], sort=False).mean()
    recipe, score = behind.idxmin()
    pairs = pairs[(pairs["other_recipe"] == recipe) & (pairs["other_score"] == score)]
    several = rows["recipe"].nunique() > 1

    def called(recipe: str, score: str) -> str:
        return f"{names.get(score, score)} ({recipe})" if several else names.get(score, score)

    scale = described(metric).scale
    over_images = [f"seed {row.seed}: {_told(row, scale)}" for row in pairs[pairs["over"] == "images"].itertuples()]
    over_seeds = [_told(row, scale) for row in pairs[pairs["over"] == "seeds"].itertuples()]
    return [heading(dataset, group, names), label(metric), called(pairs["recipe"].iloc[0], pairs["score"].iloc[0]),
            called(recipe, score), "; ".join(over_images), *(over_seeds or ["one seed"])]


def _told(row: Any, scale: float) -> str:
    """``+1.2 [0.3, 2.1], p = 0.012``."""
    estimate = f"{scale * row.estimate:+.1f}"
    if np.isnan(row.p):
        return f"{estimate}, no interval"
    p = "p < 0.001" if row.p < 0.001 else f"p = {row.p:.3f}"
    return f"{estimate} [{scale * row.low:.1f}, {scale * row.high:.1f}], {p}".replace("-", "−")
