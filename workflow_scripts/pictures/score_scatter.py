"""A foreground score against the background score, ID test images against each OOD set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import h5py
import numpy as np
from annotated_types import Gt

from workflow_scripts.core.errors import unknown
from workflow_scripts.core.specs import PictureSpec
from workflow_scripts.pictures.base import Drawing, Run
from workflow_scripts.reporting import palette, plots

SPEC = PictureSpec(needs={"scores"}, scope="one")


@dataclass(frozen=True)
class Options:
    foreground: str = "energy"
    """Score on the horizontal axis."""
    background: str = "background"
    """Score on the vertical axis."""
    points: Annotated[int, Gt(0)] = 400
    """Images of each set that are drawn, evenly spaced."""


def draw(options: Options, runs: list[Run], names: dict[str, str]) -> Drawing:
    run = runs[0]
    files = {Path(path).stem: path for path in run.files["scores"]}
    for key, name in (("foreground", options.foreground), ("background", options.background)):
        if name not in files:
            raise unknown(f"picture score_scatter, options.{key}", name, files)
    with h5py.File(files[options.foreground]) as first, h5py.File(files[options.background]) as second:
        sets = {name: (first[name][:], second[name][:]) for name in second if not name.endswith(".train")}
    id_scores = sets.pop(f"{run.id}.test")
    figure, axes = plots.panels(len(sets), 3, height=1.6, gap=0.45, bottom=0.45, left=0.11, wspace=0.3)
    facts = {}
    for number, (axis, (name, ood_scores)) in enumerate(zip(axes, sets.items(), strict=True)):
        dataset = name.rsplit(".", 1)[0]
        for scores, colour, label in ((id_scores, palette.ID, "ID"), (ood_scores, palette.OOD, "OOD")):
            step = max(1, len(scores[0]) // options.points)
            axis.plot(scores[0][::step], scores[1][::step], ".", color=colour, markersize=2.5, alpha=0.6, label=label,
                      rasterized=True)
        plots.head(axis, names.get(dataset, dataset))
        if number % 3 == 0:
            axis.set_ylabel(names.get(options.background, options.background), labelpad=1)
        varied = min(map(np.std, ood_scores)) > 0
        facts[dataset] = {"correlation": float(np.corrcoef(*ood_scores)[0, 1]) if varied else None}
    for axis in axes[-3:]:
        axis.set_xlabel(names.get(options.foreground, options.foreground))
    plots.legend(figure, axes[0].get_legend_handles_labels()[0], 2, markerscale=3)
    inside = float(np.corrcoef(*id_scores)[0, 1])
    facts[run.id] = {"correlation": inside}
    return Drawing(figure, "Foreground score against background score",
                   f"{names.get(run.network, run.network)}, {run.label}, seed {run.seed}; up to {options.points} "
                   "images of each set. Higher is more in-distribution on both axes. Correlation of the two on ID test "
                   f"images: {inside:.2f}.", facts)
