"""Drawing histograms and ROC curves, see :mod:`workflow_scripts.reporting.curves`, and a heat map of metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from workflow_scripts.reporting import palette
from workflow_scripts.reporting.curves import Histogram, Roc
from workflow_scripts.reporting.layout import Table
from workflow_scripts.reporting.plots import INK, WIDTH, head, legend, panels


def draw_histograms(data: Sequence[Histogram], names: Mapping[str, str], score: str) -> Figure:
    """Small multiples: ID and one OOD set each, the threshold that accepts 95 % of ID dashed."""
    figure, axes = panels(len(data), 3, height=0.98, gap=0.5, bottom=0.42)
    for i, (axis, panel) in enumerate(zip(axes, data, strict=True)):
        for density, colour in ((panel.id_density, palette.ID), (panel.ood_density, palette.OOD)):
            axis.stairs(density, panel.edges, fill=True, color=colour, alpha=0.42, linewidth=0)
            axis.stairs(density, panel.edges, color=colour, linewidth=1.1)
        axis.axvline(panel.threshold, color=INK, linewidth=0.8, linestyle=(0, (3, 2)))
        head(axis, names.get(panel.dataset, panel.dataset), f"{panel.group} · AUROC {100 * panel.auroc:.1f}", pad=3)
        axis.set_yticks([])
        axis.spines["left"].set_visible(False)
        axis.set_xlim(panel.edges[0], panel.edges[-1])
        axis.set_ylim(0, 1.06 * max(panel.id_density.max(), panel.ood_density.max()))
        if i >= len(data) - 3:
            axis.set_xlabel(f"{score} (higher = more ID)", fontsize=7.5)
    handles = [Patch(facecolor=palette.ID, label="ID test images"), Patch(facecolor=palette.OOD, label="OOD images"),
               Line2D([], [], color=INK, linewidth=0.8, linestyle=(0, (3, 2)),
                      label="accepts 95 % of ID (all to its right)")]
    legend(figure, handles)
    return figure


def draw_rocs(data: Sequence[Roc], names: Mapping[str, str]) -> Figure:
    """Small multiples: one OOD set each, a curve per score, a dot where 95 % of ID are accepted."""
    figure, axes = panels(len(data), 4, height=1.58, gap=0.44, bottom=0.44)
    scores = list(dict.fromkeys(score for panel in data for score in panel.curves))
    style = {s: {"color": palette.SERIES[i % 6], "linestyle": palette.DASHES[i % 6]} for i, s in enumerate(scores)}
    for i, (axis, panel) in enumerate(zip(axes, data, strict=True)):
        axis.plot([0, 1], [0, 1], color=INK, alpha=0.35, linewidth=0.7)
        axis.axhline(0.95, color=INK, alpha=0.35, linewidth=0.7, linestyle=(0, (1, 2)))
        for score, (fpr, tpr) in panel.curves.items():
            axis.plot(fpr, tpr, linewidth=1.4, **style[score])
        for score, (x, y) in panel.at95.items():
            axis.plot([x], [y], "o", markersize=4.5, color=style[score]["color"], clip_on=False)
        head(axis, names.get(panel.dataset, panel.dataset), panel.group)
        axis.set(xlim=(0, 1), ylim=(0, 1.005), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        axis.set_xticklabels(["0", "50", "100"])
        axis.set_yticklabels(["0", "50", "100"] if i % 4 == 0 else [])
        if i >= len(data) - 4:
            axis.set_xlabel("OOD accepted (%)", fontsize=7.5)
        if i % 4 == 0:
            axis.set_ylabel("ID accepted (%)", fontsize=7.5, labelpad=1)
    handles = [Line2D([], [], linewidth=1.6, label=names.get(s, s), **style[s]) for s in scores]
    handles.append(Line2D([], [], color=INK, marker="o", linestyle="", markersize=4.5, label="95 % of ID accepted"))
    legend(figure, handles, min(len(handles), 5))
    return figure


def draw_heatmap(data: Sequence[Table]) -> Figure:
    """Rows = recipe and score, columns = sets and averages, one block per table of one metric, which has no ID task."""
    def inches(texts: Sequence[str]) -> float:
        return 0.067 * max(map(len, texts), default=0)  # a letter of 8 points, on average and generously

    def heads(table: Table) -> tuple[list[str], list[str]]:
        """The lines of a block's title, and its rows' names: a training that all rows share stands in the title."""
        trainings, scores = ([cell.text for cell in table.cells.iloc[:, i]] for i in (0, 1))
        if len(set(trainings)) == 1 and len(scores) > 1:
            return [table.title, trainings[0]], scores
        return [table.title], [f"{training} · {score}" for training, score in zip(trainings, scores, strict=True)]

    cell = 0.25  # inches
    blocks = [(heads(table), table.cells.iloc[:, 2:]) for table in data]
    top = 0.3 + 0.53 * inches([column.group for _, cells in blocks for column in cells])  # sin 32 degrees
    left = 0.2 + inches([line for (title, rows), _ in blocks for line in (*title, *rows)])
    total = sum(top + cell * len(cells) for _, cells in blocks) + 0.12
    figure, y = Figure(figsize=(WIDTH, total)), total
    for (title, rows), cells in blocks:
        height = top + cell * len(rows)
        width = (WIDTH - left - 0.6) / max(cells.shape[1], 5)
        right = left + width * cells.shape[1]
        axis = figure.add_axes((left / WIDTH, (y - height) / total, (right - left) / WIDTH, (height - top) / total))
        y -= height
        axis.set(xlim=(0, max(cells.shape[1], 1)), ylim=(max(len(rows), 1), 0), xticks=[], yticks=[])
        axis.spines[["left", "bottom"]].set_visible(False)
        for x, column in enumerate(cells):
            inset = 0.06 if column.style else 0.0
            axis.text(x + 0.42, -0.18, column.group, rotation=32, ha="left", va="bottom", fontsize=7.5,
                      fontstyle="italic" if column.style else "normal")
            for k, number in enumerate(cells[column]):
                box = {"xy": (x + 0.02 + inset, k + 0.03), "width": 0.96 - inset, "height": 0.94}
                if number.value is None:
                    axis.add_patch(Rectangle(**box, fill=False, hatch="////", edgecolor=INK, alpha=0.35, linewidth=0.4))
                    axis.text(x + 0.5 + inset / 2, k + 0.52, number.text, ha="center", va="center", fontsize=6.5)
                    continue
                colour, ink = palette.heat(number.value)
                axis.add_patch(Rectangle(**box, facecolor=colour, linewidth=0))
                axis.text(x + 0.5 + inset / 2, k + 0.52, f"{100 * number.value:.1f}", ha="center", va="center",
                          fontsize=7.5, color=ink)
        for k, row in enumerate(rows):
            axis.text(-0.12, k + 0.52, row, ha="right", va="center", fontsize=8)
        axis.text(-0.12, -0.3, "\n".join(title), ha="right", va="bottom", fontsize=8.5, fontweight="bold")
    return figure
