"""Detection of several ways to train, side by side: a dot for each seed, a line for their mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from workflow_scripts.core.specs import PictureSpec
from workflow_scripts.pictures.base import Drawing, Run
from workflow_scripts.pictures.detection_by_ratio import mean_over_sets
from workflow_scripts.reporting import palette, plots

SPEC = PictureSpec(needs={"metrics"}, scope="all")


@dataclass(frozen=True)
class Options:
    score: str = "knn"
    """Score whose detection is shown."""
    metric: str = "auroc"
    """Its metric, averaged over the OOD sets."""


def draw(options: Options, runs: list[Run], names: dict[str, str]) -> Drawing:
    places = list(dict.fromkeys((run.id, run.network) for run in runs))
    rows = list(dict.fromkeys((run.recipe, run.label) for run in runs))
    columns = min(2, len(places))
    figure, axes = plots.panels(len(places), columns, height=0.5 + 0.25 * len(rows), gap=0.6, bottom=0.45,
                                left=0.19)  # room for the rows' names
    facts: dict[str, dict] = {}
    for number, (axis, place) in enumerate(zip(axes, places, strict=True)):
        for at, (recipe, _) in enumerate(rows):
            values = [mean_over_sets(run, options) for run in runs
                      if (run.id, run.network, run.recipe) == (*place, recipe)]
            facts.setdefault("/".join(place), {})[recipe] = values
            if values:
                axis.plot([100 * v for v in values], [at] * len(values), "o", color=palette.ID, markersize=3.5,
                          alpha=0.7)
                axis.plot([100 * np.mean(values)], [at], "|", color="black", markersize=11)
        axis.set_yticks(range(len(rows)))
        texts = [" ".join([label, *(f"[{bug}]" for bug in recipe.split("+")[1:])]) for recipe, label in rows]
        axis.set_yticklabels(texts if number % columns == 0 else [])
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.set_xlabel(f"mean {options.metric.upper()} (%)")
        plots.head(axis, f"{names.get(place[0], place[0])}, {names.get(place[1], place[1])}")
    seeds = sorted({run.seed for run in runs})
    return Drawing(figure, "Detection by training",
                   f"{names.get(options.score, options.score)}, mean over the OOD sets; a dot for each of the "
                   f"{len(seeds)} seed(s), the bar is their mean. In brackets the released defects that a training "
                   "reproduces.", facts)
