"""Detection after fine-tuning, against the share of the background that was kept: random and learned selection."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from workflow_scripts.core.specs import PictureSpec
from workflow_scripts.pictures.base import Drawing, Run
from workflow_scripts.reporting import palette, plots
from workflow_scripts.reporting.results import read_metrics

SPEC = PictureSpec(needs={"metrics"}, scope="all")


@dataclass(frozen=True)
class Options:
    score: str = "msp"
    """Score whose detection is shown."""
    metric: str = "auroc"
    """Its metric, averaged over the OOD sets."""


def draw(options: Options, runs: list[Run], names: dict[str, str]) -> Drawing:
    places = list(dict.fromkeys((run.id, run.network) for run in runs))
    columns = min(2, len(places))
    figure, axes = plots.panels(len(places), columns, height=1.8, gap=0.7, bottom=0.5, left=0.085, wspace=0.2)
    facts: dict[str, dict] = {}
    for axis, place in zip(axes, places, strict=True):
        points: dict[tuple[str, float], list[float]] = {}
        for run in runs:
            if (run.id, run.network) == place:
                select = (run.section["outliers"] or {}).get("select")
                key = (select["rule"], select["ratio"]) if select else ("full", 1.0)
                points.setdefault(key, []).append(mean_over_sets(run, options))
        series: dict[str, list[tuple[float, list[float]]]] = {}
        for (rule, ratio), values in sorted(points.items(), key=lambda item: item[0]):
            for name in ("random", "learned") if rule == "full" else (rule,):
                series.setdefault(name, []).append((ratio, values))
        for i, (rule, rows) in enumerate(sorted(series.items(), reverse=True)):
            rows.sort()
            at, means = [r for r, _ in rows], [100 * np.mean(v) for _, v in rows]
            axis.plot(at, means, color=palette.SERIES[i], linestyle=palette.DASHES[i], marker="o", markersize=3.5,
                      linewidth=1.3, label=rule)
            for ratio, values in rows:
                axis.plot([ratio] * len(values), [100 * v for v in values], "_", color=palette.SERIES[i], alpha=0.6)
            facts.setdefault("/".join(place), {})[rule] = {f"{r:g}": v for r, v in rows}
        axis.set_xscale("log")
        axis.set_xticks(sorted({r for rows in series.values() for r, _ in rows}))
        axis.minorticks_off()
        axis.set_xticklabels([f"{t:g}" for t in axis.get_xticks()])
        axis.set_xlabel("share p of the background that is kept")
        axis.set_ylabel(f"mean {options.metric.upper()} (%)", labelpad=1)
        plots.head(axis, f"{names.get(place[0], place[0])}, {names.get(place[1], place[1])}")
    plots.legend(figure, axes[0].get_legend_handles_labels()[0], 2)
    seeds = sorted({run.seed for run in runs})
    return Drawing(figure, "Detection against the share of the background that is kept",
                   f"{names.get(options.score, options.score)}, mean over the OOD sets; a dash for each of the "
                   f"{len(seeds)} seed(s), the line joins their means. p = 1 is the whole background, for both.", facts)


def mean_over_sets(run: Run, options: Options) -> float:
    """Mean of a score's metric over the run's OOD sets, a fraction; NaN where it was not computed."""
    rows = read_metrics(run.files["metrics"])
    found = rows.loc[(rows["score"] == options.score) & (rows["metric"] == options.metric)
                     & (rows["dataset"] != run.id), "value"]
    return float(np.mean(found.to_numpy())) if len(found) else float("nan")
