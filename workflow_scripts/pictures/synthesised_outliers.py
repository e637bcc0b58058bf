"""ID features, boundary features and synthesised outliers over a training, and how far out they lie.

Above: two-dimensional projections, one for each snapshot of the training record, on the two directions in which the
features of the last snapshot vary most (directions of features: each is brought to length 1 first). Below: histograms
of the squared distance to the K-th neighbour in a class's queue, of queued features and of kept outliers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

import h5py
import numpy as np
from annotated_types import Gt
from matplotlib.figure import Figure

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.specs import PictureSpec
from workflow_scripts.pictures.base import Drawing, Run
from workflow_scripts.reporting import palette, plots

SPEC = PictureSpec(needs={"record"}, scope="one")


@dataclass(frozen=True)
class Options:
    most: Annotated[int, Gt(0)] = 4
    """Snapshots shown, evenly spaced over those that there are, the last one among them."""


def unit(x: np.ndarray) -> np.ndarray:
    """Rows of length 1; a zero row stays. (n, D) -> (n, D) float64."""
    x = x.astype(np.float64)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def plane(features: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Centre (D,), the two main directions (D, 2), and their share of the variance of unit features (n, D)."""
    centre = features.mean(0)
    _, values, directions = np.linalg.svd(features - centre, full_matrices=False)
    flipped = directions[:2] * np.sign(directions[:2].sum(1, keepdims=True))  # a sign is arbitrary: fixed
    return centre, flipped.T, float((values[:2]**2).sum() / max((values**2).sum(), 1e-300))


def draw(options: Options, runs: list[Run], names: dict[str, str]) -> Drawing:
    run = runs[0]
    with h5py.File(run.files["record"]) as file:
        epochs = sorted(int(found[1]) for key in file if (found := re.fullmatch(r"snapshot_(\d+)", key)))
        if not epochs:
            raise OODError(f"{run.files['record']}: no snapshot; give the recipe options.snapshots, epochs in which "
                           "outliers are synthesised, and train to its end")
        count = min(options.most, len(epochs))
        epochs = [epochs[i] for i in np.linspace(len(epochs) - 1, 0, count).round().astype(int)[::-1]]
        shots = [{key: values[:] for key, values in file[f"snapshot_{epoch}"].items()} for epoch in epochs]
    centre, directions, share = plane(unit(shots[-1]["features"]))
    figure = Figure(figsize=(plots.WIDTH, 4.0))
    axes = np.atleast_2d(figure.subplots(2, len(shots), gridspec_kw={
        "left": 0.06, "right": 0.99, "top": 0.87, "bottom": 0.11, "wspace": 0.25, "hspace": 0.4,
        "height_ratios": (3, 2)}).reshape(2, -1))
    # zero rows of a released queue (npos.B1) are infinitely far: they stand in the last bin
    shown = [values[values <= 4] for shot in shots for values in (shot["distances"], shot["outlier_distances"])]
    far = max(float(np.quantile(values, 0.999)) for values in shown if values.size)
    edges = np.linspace(0, far * 1.02, 41)
    facts: dict[str, dict] = {}
    for column, (epoch, shot) in enumerate(zip(epochs, shots, strict=True)):
        top, low = axes[:, column]
        for key, colour, marker, size, label in (
            ("features", palette.ID, ".", 3, "ID features"), ("outliers", palette.SERIES[1], ".", 3, "outliers"),
            ("centres", "black", "x", 3.5, "boundary features they are drawn around"),
        ):
            at = (unit(shot[key]) - centre) @ directions
            top.plot(*at.T, marker, color=colour, markersize=size, alpha=0.5, label=label, rasterized=True)
        top.set_xticks([])
        top.set_yticks([])
        plots.head(top, f"epoch {epoch}")
        for key, colour in (("distances", palette.ID), ("outlier_distances", palette.SERIES[1])):
            low.hist(np.clip(shot[key], 0, edges[-1]), bins=edges, density=True, color=colour, alpha=0.55)
        low.set_yticks([])
        low.set_xlabel("squared distance to the K-th neighbour", fontsize=7)
        facts[str(epoch)] = {"median_distance": float(np.median(shot["distances"])),
                             "median_outlier_distance": float(np.median(shot["outlier_distances"])),
                             "features": len(shot["features"]), "outliers": len(shot["outliers"])}
    plots.legend(figure, axes[0, 0].get_legend_handles_labels()[0], 3, markerscale=2)
    return Drawing(
        figure, "Synthesised outliers over the training",
        f"{names.get(run.network, run.network)} on {names.get(run.id, run.id)}, {run.label}, seed {run.seed}. "
        f"Directions of penultimate features, on the plane in which those of epoch {epochs[-1]} vary most ({share:.0%} "
        "of their variance); below, distances in each class's queue. Up to 1,000 features and outliers each.",
        {"snapshots": facts, "variance_shown": share})
