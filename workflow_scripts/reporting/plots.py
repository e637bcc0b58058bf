"""Drawing: the panels of :mod:`workflow_scripts.reporting.curves` and a heat map, and figures as files.

An SVG is transparent and its ink is ``currentColor``: inlined it takes the page's colour, alone it follows the
reader's light or dark setting. A PNG is the light version on white. Title and caption are in the SVG (``title`` and
``desc``), where the page finds them. Same input, same bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from workflow_scripts.core.files import atomic
from workflow_scripts.reporting import palette
from workflow_scripts.reporting.curves import Histogram, Roc
from workflow_scripts.reporting.layout import Table

INK = "#1b1f24"  # stands for currentColor until the SVG is written
WIDTH = 7.6  # inches; all figures share it, so text has one size on the page
TOP = 0.62  # inches above the panels: legend
matplotlib.rcParams.update({
    "svg.fonttype": "none", "svg.hashsalt": "ood", "font.family": "DejaVu Sans", "font.size": 8,
    "axes.edgecolor": INK, "axes.labelcolor": INK, "text.color": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6, "xtick.major.width": 0.6,
    "ytick.major.width": 0.6, "xtick.major.size": 2.5, "ytick.major.size": 2.5, "legend.frameon": False,
    "legend.handlelength": 1.8, "hatch.linewidth": 0.5,
})
FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"


def panels(count: int, columns: int, height: float, gap: float, bottom: float, top: float = TOP, left: float = 0.06,
           wspace: float = 0.14) -> tuple[Figure, list]:
    """A figure of ``count`` axes in rows of ``columns``; ``height``, ``gap`` (between rows), ``bottom``, ``top`` in
    inches, ``left`` as a share of the width, ``wspace`` (between columns) as a share of an axis."""
    rows = max(-(-count // columns), 1)
    total = top + rows * height + (rows - 1) * gap + bottom
    figure = Figure(figsize=(WIDTH, total))
    grid = figure.add_gridspec(rows, columns, left=left, right=0.975, top=1 - top / total, bottom=bottom / total,
                               hspace=gap / height, wspace=wspace)
    return figure, [figure.add_subplot(grid[i // columns, i % columns]) for i in range(count)]


def head(axis: Axes, left: str, right: str = "", pad: float = 4) -> None:
    """A panel's title, and what stands opposite."""
    axis.set_title(left, loc="left", fontsize=8.5, fontweight="bold", pad=pad)
    axis.set_title(right, loc="right", fontsize=7.5, pad=pad, alpha=0.85)


def legend(figure: Figure, handles: Sequence[Artist], ncols: int = 3, **more: Any) -> None:
    """The legend above all panels."""
    figure.legend(handles=handles, loc="upper left", ncols=ncols, bbox_to_anchor=(0.05, 1), fontsize=8, **more)


def empty(message: str) -> Figure:
    """A figure that says why there is nothing to see."""
    figure = Figure(figsize=(WIDTH, 1.1))
    figure.text(0.5, 0.5, message, ha="center", va="center", alpha=0.8)
    return figure


def draw_histograms(data: Sequence[Histogram], names: dict[str, str], score: str) -> Figure:
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


def draw_rocs(data: Sequence[Roc], names: dict[str, str]) -> Figure:
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
    head = 0.3 + 0.53 * inches([column.group for _, cells in blocks for column in cells])  # sin 32 degrees
    left = 0.2 + inches([line for (title, rows), _ in blocks for line in (*title, *rows)])
    total = sum(head + cell * len(cells) for _, cells in blocks) + 0.12
    figure, y = Figure(figsize=(WIDTH, total)), total
    for (title, rows), cells in blocks:
        height = head + cell * len(rows)
        width = (WIDTH - left - 0.6) / max(cells.shape[1], 5)
        right = left + width * cells.shape[1]
        axis = figure.add_axes((left / WIDTH, (y - height) / total, (right - left) / WIDTH, (height - head) / total))
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


def to_svg(figure: Figure, title: str, caption: str, salt: str) -> str:
    """The figure as themed, deterministic SVG text; ids carry ``salt`` so that figures can share a page."""
    buffer = io.StringIO()
    FigureCanvasSVG(figure)
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg"):]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    used = set(re.findall(r'(?:xlink:href="#|url\(#)([^")]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda m: f' id="{salt}-{m[1]}"' if m[1] in used else "", text)
    text = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{salt}-", text)
    text = text.replace(INK, "currentColor").replace("'DejaVu Sans'", FONTS)
    # Text without a fill of its own would be black on a dark page.
    text = text.replace("<style type=\"text/css\">*{stroke-linejoin: round; stroke-linecap: butt}</style>", "")
    style = (".ood-figure{color:#1b1f24;fill:currentColor;stroke-linejoin:round;stroke-linecap:butt}"
             "@media (prefers-color-scheme:dark){.ood-figure{color:#e6e8eb}}")
    tag, _, rest = text.partition(">")
    return (f'{tag} class="ood-figure" role="img"><title>{escape(title)}</title><desc>{escape(caption)}</desc>'
            f"<style>{style}</style>{rest}")


def save(figure: Figure, folder: Path, name: str, title: str, caption: str, salt: str) -> None:
    """Write ``name.svg`` and ``name.png`` (200 dots per inch, white) into ``folder``."""
    with atomic(folder / f"{name}.svg") as partial:
        partial.write_text(to_svg(figure, title, caption, f"{salt}-{name}"), encoding="utf-8")
    FigureCanvasAgg(figure)
    with atomic(folder / f"{name}.png") as partial:
        figure.savefig(partial, format="png", dpi=200, facecolor="white", metadata={"Software": None})
