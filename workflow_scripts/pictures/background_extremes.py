"""The background images with the largest and with the smallest learned weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import h5py
import numpy as np
from annotated_types import Gt
from matplotlib.figure import Figure

from workflow_scripts.core.specs import PictureSpec
from workflow_scripts.data.images.selection import softplus
from workflow_scripts.data.images.store import streamed
from workflow_scripts.pictures.base import Drawing, Run
from workflow_scripts.reporting import plots

SPEC = PictureSpec(needs={"record", "outliers"}, scope="one")


@dataclass(frozen=True)
class Options:
    columns: Annotated[int, Gt(0)] = 12
    """Images in a row."""
    rows: Annotated[int, Gt(0)] = 2
    """Rows of each kind."""


def draw(options: Options, runs: list[Run], names: dict[str, str]) -> Drawing:
    run = runs[0]
    with h5py.File(run.files["record"]) as file:
        theta = file["theta"][:]
    weights = softplus(theta) / softplus(theta).mean()
    order = np.argsort(-weights, kind="stable")
    count = min(options.columns * options.rows, len(order) // 2)
    sheets = options.rows * plots.WIDTH / options.columns  # inches
    total = 2 * (0.3 + sheets)
    figure = Figure(figsize=(plots.WIDTH, total))
    blocks = [figure.add_axes((0.005, at / total, 0.99, sheets / total)) for at in (0.3 + sheets, 0)]
    with streamed(run.files["outliers"]) as store:
        for axis, part, title in zip(blocks, (order[:count], order[-count:][::-1]),
                                     ("Largest weights", "Smallest weights"), strict=True):
            pixels = np.concatenate([store.images[i:i + 1] for i in part.tolist()])
            axis.imshow(sheet(pixels, options.columns, options.rows), interpolation="nearest")
            axis.set_axis_off()
            axis.set_title(title, loc="left", fontsize=8.5, fontweight="bold", pad=3)
            axis.set_title(f"w / mean w: {weights[part[0]]:.2f} to {weights[part[-1]]:.2f}", loc="right", fontsize=7.5,
                           pad=3, alpha=0.85)
    return Drawing(figure, "Background images with the largest and the smallest weights",
                   f"{names.get(run.network, run.network)} on {names.get(run.id, run.id)}, seed {run.seed}; of "
                   f"{len(theta):,} images, the most extreme first. The game favours images on which its "
                   "network is sure of a class.")


def sheet(pixels: np.ndarray, columns: int, rows: int) -> np.ndarray:
    """Images (n, H, W, 3) as one picture of ``rows`` x ``columns`` tiles, gaps and missing tiles transparent."""
    count, height, width = pixels.shape[:3]
    out = np.zeros((rows, height + 2, columns, width + 2, 4), np.uint8)
    for i in range(count):
        out[i // columns, 1:-1, i % columns, 1:-1, :3] = pixels[i]
        out[i // columns, 1:-1, i % columns, 1:-1, 3] = 255
    return out.reshape(rows * (height + 2), columns * (width + 2), 4)
