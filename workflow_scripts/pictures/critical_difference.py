"""Mean ranks of a paper's scores over OOD sets, and which of them a rank test cannot tell apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.textpath import TextPath

from workflow_scripts.core.errors import OODError, unknown
from workflow_scripts.core.specs import PictureSpec
from workflow_scripts.metrics.ranks import ALPHA, Ranks, rank_test
from workflow_scripts.pictures.base import Drawing, Run
from workflow_scripts.reporting import palette, plots
from workflow_scripts.reporting.results import read_metrics
from workflow_scripts.reporting.statistics import METRICS

SPEC = PictureSpec(needs={"metrics"}, scope="all")
SIZE = 7.5  # points of all text
STEP = 0.17  # inches from one name to the next
BAR = 0.07  # inches from one bar to the next


@dataclass(frozen=True)
class Options:
    metric: str = "auroc"
    """Metric of the OOD task by which scores are ranked."""
    scores: tuple[str, ...] = ()
    """Scores that are ranked; left out: all of the networks."""


def draw(options: Options, runs: list[Run], names: dict[str, str]) -> Drawing:
    values, left_out = by_set(options, runs)
    found = rank_test(values.to_numpy(), bool(METRICS[options.metric].higher))
    labels = [names.get(score, score) for score in values.columns]
    bars = found.groups()
    rows = -(-len(labels) // 2)
    height = 0.55 + BAR * len(bars) + STEP * rows
    figure, [axis] = plots.panels(1, 1, height=height, gap=0, bottom=0.1, top=0.15, left=0.025)
    _draw(axis, found, labels, bars, height)
    where = sorted({names.get(run.id, run.id) for run in runs})
    means = "; a value is the mean over trained networks" if len(runs) > len(where) else ""
    verdict = ("a bar joins scores that Nemenyi's test cannot tell apart" if found.p <= ALPHA else
               "they do not differ as a whole, so one bar joins all")
    caption = (f"Mean rank by {METRICS[options.metric].label} over {len(values)} OOD sets ({', '.join(where)}), 1 is "
               f"best{means}. Friedman's test: p = {found.p:.2g}; {verdict} (critical difference "
               f"{found.critical:.2f}, 5 %).")
    if left_out:
        caption += f" Left out, since a set is missing: {', '.join(names.get(name, name) for name in left_out)}."
    facts = {"sets": ["/".join(place) for place in values.index], "p": found.p, "critical_difference": found.critical,
             "mean_rank": dict(zip(values.columns, found.mean.tolist(), strict=True)),
             "alike": [[values.columns[k] for k in bar] for bar in bars], "left_out": left_out}
    return Drawing(figure, "Scores by mean rank over OOD sets", caption, facts)


def by_set(options: Options, runs: list[Run]) -> tuple[pd.DataFrame, list[str]]:
    """The metric of each score on each OOD set, averaged over trained networks.

    Returns:
        Values with a row for each (ID set, OOD set) and a column for each score that has all of them; the other scores.

    Raises:
        OODError: a metric that has no direction or that no run has, a score that no run has, or a metrics file that
            cannot be read.
    """
    metric = options.metric
    if metric not in METRICS or METRICS[metric].higher is None:
        raise unknown("picture critical_difference, options.metric", metric,
                      [name for name, about in METRICS.items() if about.higher is not None])
    frames = [read_metrics(run.files["metrics"]).assign(id=run.id) for run in runs]
    rows = pd.concat(frames)
    rows = rows[(rows["metric"] == metric) & (rows["group"] != "id")]
    if rows.empty:
        raise OODError(f"picture critical_difference: no metrics file has {metric} of an OOD set; take one "
                       "such as auroc")
    for name in options.scores:
        if name not in set(rows["score"]):
            raise unknown("picture critical_difference, options.scores", name, dict.fromkeys(rows["score"]))
    rows = rows[rows["score"].isin(options.scores or rows["score"])]
    wide = rows.pivot_table(index=["id", "dataset"], columns="score", values="value", sort=False)
    whole = wide.notna().all()
    return wide.loc[:, whole], list(wide.columns[~whole])


def _draw(axis: Axes, found: Ranks, labels: list[str], bars: list[tuple[int, ...]], height: float) -> None:
    """The ranks from the best on the left, names on both sides, bars below the axis; y in inches from the top."""
    count = len(labels)
    texts = [f"{label} ({rank:.1f})" for label, rank in zip(labels, found.mean, strict=True)]
    side = max(TextPath((0, 0), text, size=SIZE).get_extents().width for text in texts) / 72 + 0.2  # inches for names
    width = axis.figure.get_figwidth() * axis.get_position().width
    room = (count - 1) * side / (width - 2 * side)  # the same in ranks
    axis.set_xlim(1 - room, count + room)
    axis.set_ylim(height, 0)
    axis.axis("off")
    axis.plot([1, count], [0.3, 0.3], color=plots.INK, linewidth=0.8)
    ticks = range(1, count + 1, max(1, round(count / 10)))
    for tick in ticks:
        axis.plot([tick, tick], [0.25, 0.3], color=plots.INK, linewidth=0.8)
        axis.text(tick, 0.22, str(tick), ha="center", va="bottom", fontsize=SIZE)
    axis.plot([1, min(1 + found.critical, count + room)], [0.02, 0.02], color=palette.OOD, linewidth=1.5)
    axis.text(1 - 0.02 * count, 0.02, "critical difference", ha="right", va="center", fontsize=SIZE)
    for number, bar in enumerate(bars, start=1):
        ends = found.mean[[bar[0], bar[-1]]] + np.array([-0.01, 0.01]) * count
        axis.plot(ends, [0.3 + BAR * number] * 2, color=palette.ID, linewidth=2.5, solid_capstyle="butt")
    first = 0.3 + BAR * (len(bars) + 1) + STEP / 2
    order = np.argsort(found.mean, kind="stable")
    half = -(-count // 2)
    edge = 0.02 * count
    for side, end, chosen in (("right", 1 - edge, order[:half]), ("left", count + edge, order[half:][::-1])):
        for row, k in enumerate(chosen):
            rank, y = found.mean[k], first + STEP * row
            axis.plot([rank, rank, end], [0.3, y, y], color=plots.INK, linewidth=0.6)
            axis.annotate(texts[k], (end, y), (-3 if side == "right" else 3, 0), ha=side,
                          textcoords="offset points", va="center", fontsize=SIZE)
