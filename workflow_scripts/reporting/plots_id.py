"""Drawing the reliability figures, see :mod:`workflow_scripts.reporting.confidences`; style of :mod:`.plots`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from workflow_scripts.metrics.confidence import BINS
from workflow_scripts.reporting import palette
from workflow_scripts.reporting.confidences import COVERAGE, Training, edges, shares
from workflow_scripts.reporting.plots import INK, head, legend, panels

KINDS = {"right": (palette.ID, "ID, classified right"), "wrong": (palette.SERIES[3], "ID, misclassified"),
         "ood": (palette.OOD, "OOD")}


FEW = 10  # images of a bin, below which its accuracy says little


def over_seeds(values: Sequence[float], scale: float, digits: int = 1) -> str:
    """``4.7 ± 0.2``; no ± for one seed."""
    spread = f" ± {np.std(values, ddof=1) * scale:.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values) * scale:.{digits}f}{spread}"


def place(training: Training, names: dict[str, str]) -> str:
    return f"{names.get(training.id, training.id)}, {names.get(training.network, training.network)}"


def draw_risks(trainings: Sequence[Training], names: dict[str, str]) -> Figure:
    """A panel for each ID set and network, a curve for each training."""
    places = list(dict.fromkeys(place(t, names) for t in trainings))
    labels = list(dict.fromkeys(t.label for t in trainings))
    style = {k: {"color": palette.SERIES[i % 6], "linestyle": palette.DASHES[i % 6]} for i, k in enumerate(labels)}
    columns = min(len(places), 3)
    figure, axes = panels(len(places), columns, height=2.0, gap=0.5, bottom=0.46, top=0.28)
    for i, (axis, where) in enumerate(zip(axes, places, strict=True)):
        lines = []
        for training in (t for t in trainings if place(t, names) == where):
            risks = 100 * training.risks
            axis.fill_between(100 * COVERAGE, risks.min(0), risks.max(0), color=style[training.label]["color"],
                              alpha=0.16, linewidth=0)
            axis.plot(100 * COVERAGE, risks.mean(0), linewidth=1.4, **style[training.label])
            lines.append((f"{names.get(training.label, training.label)}  {over_seeds(training.aurc, 1000, 2)}",
                          style[training.label]))
        axis.set(xlim=(0, 100), ylim=(0, None), xticks=[0, 25, 50, 75, 100])
        head(axis, where)
        axis.legend(handles=[Line2D([], [], linewidth=1.6, label=text, **s) for text, s in lines], loc="upper left",
                    title="AURC ×10³", title_fontsize=7.5, alignment="left", fontsize=7.5)
        if i >= len(places) - columns:
            axis.set_xlabel("coverage: ID test images accepted (%)", fontsize=7.5)
        if i % columns == 0:
            axis.set_ylabel("risk: errors among them (%)", fontsize=7.5, labelpad=2)
    return figure


def draw_confidences(trainings: Sequence[Training], names: dict[str, str], score: str, probability: bool) -> Figure:
    """A panel for each training: ID right, ID wrong and OOD, each scaled to its own number of images."""
    figure, axes = panels(len(trainings), 4, height=1.3, gap=0.52, bottom=0.44)
    bins = edges(trainings, probability)
    several = len({place(t, names) for t in trainings}) > 1
    heights = [{kind: np.sqrt(shares(values, bins)) for kind, values in t.kinds().items()} for t in trainings]
    top = 1.06 * max(height.max() for panel in heights for height in panel.values())
    ticks = [t for t in (0, 0.01, 0.05, 0.2, 0.5, 1) if np.sqrt(t) <= top]
    for i, (axis, training) in enumerate(zip(axes, trainings, strict=True)):
        for kind, height in heights[i].items():
            axis.stairs(height, bins, fill=True, color=KINDS[kind][0], alpha=0.22, linewidth=0)
            axis.stairs(height, bins, color=KINDS[kind][0], linewidth=1.2)
        titles(axis, training, names, several)
        axis.set(xlim=(bins[0], bins[-1]), ylim=(0, top))
        axis.set_yticks(np.sqrt(ticks), [f"{100 * t:.0f}" if i % 4 == 0 else "" for t in ticks], fontsize=7)
        if probability:
            axis.set_xticks([0, 0.5, 1], ["0", "50", "100"], fontsize=7)
        if i >= len(trainings) - 4:
            axis.set_xlabel("confidence (%)" if probability else f"{score} (higher = more ID)", fontsize=7.5)
        if i % 4 == 0:
            axis.set_ylabel("images (%)", fontsize=7.5, labelpad=1)
    legend(figure, [Patch(facecolor=colour, label=text) for colour, text in KINDS.values()])
    return figure


def draw_reliability(trainings: Sequence[Training], names: dict[str, str]) -> Figure:
    """A panel for each training: accuracy in bins of the softmax probability, the diagonal, and the ECE."""
    figure, axes = panels(len(trainings), 4, height=1.58, gap=0.52, bottom=0.44)
    several = len({place(t, names) for t in trainings}) > 1
    width = 100 / BINS
    left = width * np.arange(BINS)
    for i, (axis, training) in enumerate(zip(axes, trainings, strict=True)):
        found = training.calibration()
        there = found.count > 0
        accuracy, probability = 100 * found.accuracy[there], 100 * found.probability[there]
        for bar, x, count in zip(accuracy, left[there], found.count[there], strict=True):
            axis.bar(x, bar, width, align="edge", color=palette.ID, alpha=0.42 if count >= FEW else 0.14, linewidth=0)
        axis.bar(left[there], probability - accuracy, width, accuracy, align="edge", fill=False, hatch="////",
                 edgecolor=palette.OOD, linewidth=0.7)
        axis.hlines(accuracy, left[there], left[there] + width, color=palette.ID, linewidth=1.6)
        axis.plot([0, 100], [0, 100], color=INK, alpha=0.5, linewidth=0.8, linestyle=(0, (3, 2)))
        axis.text(3, 98, f"ECE\n{over_seeds(training.ece, 100)}", fontsize=8, va="top")
        titles(axis, training, names, several)
        axis.set(xlim=(0, 100), ylim=(0, 102), yticks=[0, 50, 100])
        axis.set_xticks([0, 50, 100], ["0", "50", "100"], fontsize=7)
        axis.set_yticklabels(["0", "50", "100"] if i % 4 == 0 else [])
        if i >= len(trainings) - 4:
            axis.set_xlabel("softmax probability (%)", fontsize=7.5)
        if i % 4 == 0:
            axis.set_ylabel("accuracy (%)", fontsize=7.5, labelpad=1)
    handles = [Patch(facecolor=palette.ID, alpha=0.6, label="accuracy"),
               Patch(facecolor=palette.ID, alpha=0.2, label=f"of fewer than {FEW} images"),
               Patch(fill=False, hatch="////", edgecolor=palette.OOD, label="gap to the mean probability")]
    legend(figure, handles)
    return figure


def titles(axis, training: Training, names: dict[str, str], several: bool) -> None:
    """The training, and above the panel where it was trained if panels differ in that."""
    head(axis, names.get(training.label, training.label), pad=13 if several else 4)
    if several:
        axis.text(0, 1.02, place(training, names), transform=axis.transAxes, fontsize=7, va="bottom", alpha=0.85)
