"""The style that all figures share, and figures as files.

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

from workflow_scripts.core.files import atomic

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
