"""Images of every set beside their activation map, pseudo-mask, dense prediction and background map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import h5py
import numpy as np
from annotated_types import Gt
from matplotlib import colormaps
from matplotlib.figure import Figure

from workflow_scripts.core.specs import PictureSpec
from workflow_scripts.pictures.base import Drawing, Run
from workflow_scripts.reporting import plots

SPEC = PictureSpec(needs={"panels"}, scope="one")
PARTS = {"images": "image", "cam": "activation", "mask": "pseudo-mask", "dense": "dense", "background": "background"}


@dataclass(frozen=True)
class Options:
    columns: Annotated[int, Gt(0)] = 3
    """Images side by side, each with its maps."""
    rows: Annotated[int, Gt(0)] = 2
    """Images of each set below one another."""


def coloured(part: str, values: np.ndarray, labels: int) -> np.ndarray:
    """Maps as colours: shares in greys, label 0 black and each class its own colour. -> (n, H, W, 3) uint8."""
    if part == "images":
        return values
    if part in ("mask", "dense"):
        rgb = colormaps["hsv"](np.where(values, (values - 1) / max(1, labels), 0))[..., :3] * (values > 0)[..., None]
    else:
        rgb = np.repeat(np.clip(values, 0, 1)[..., None], 3, axis=-1)
    return np.rint(rgb * 255).astype(np.uint8)


def sheet(arrays: dict[str, np.ndarray], options: Options, labels: int) -> np.ndarray:
    """Rows of images with their maps behind them, transparent gaps between. -> (h, w, 4) uint8."""
    count = min(options.columns * options.rows, len(arrays["images"]))
    parts = np.stack([coloured(part, arrays[part][:count], labels) for part in PARTS], axis=1)  # (n, 5, H, W, 3)
    height, width = parts.shape[2:4]
    rows, gap = -(-count // options.columns), max(1, height // 12)
    block = len(PARTS) * (width + 1)
    out = np.zeros((rows * (height + gap), options.columns * (block + gap), 4), np.uint8)
    for i, images in enumerate(parts):
        top, left = i // options.columns * (height + gap), i % options.columns * (block + gap)
        for k, image in enumerate(images):
            place = out[top:top + height, left + k * (width + 1):left + k * (width + 1) + width]
            place[..., :3], place[..., 3] = image, 255
    return out


def draw(options: Options, runs: list[Run], names: dict[str, str]) -> Drawing:
    run = runs[0]
    with h5py.File(run.files["panels"]) as file:
        sets = {name: {part: file[name][part][:] for part in PARTS} for name in file}
    labels = max(int(max(arrays["mask"].max(), arrays["dense"].max())) for arrays in sets.values())
    order = sorted(sets, key=lambda name: (not name.startswith(f"{run.id}."), name))
    sheets = [sheet(sets[name], options, labels) for name in order]
    heights = [plots.WIDTH * s.shape[0] / s.shape[1] for s in sheets]
    title, total = 0.24, sum(heights) + 0.24 * len(order)
    figure, top = Figure(figsize=(plots.WIDTH, total)), total
    for name, image, height in zip(order, sheets, heights, strict=True):
        top -= title + height
        axis = figure.add_axes((0, top / total, 1, height / total))
        axis.imshow(image, interpolation="nearest", aspect="auto")
        axis.set_axis_off()
        dataset = name.rsplit(".", 1)[0]
        axis.set_title(f"{names.get(dataset, dataset)}{' (ID)' if dataset == run.id else ''}", loc="left",
                       fontsize=8.5, fontweight="bold", pad=3)
    shares = {name: float(arrays["background"].mean()) for name, arrays in sets.items()}
    return Drawing(
        figure, "Foreground and background maps",
        f"{names.get(run.network, run.network)}, {run.label}, seed {run.seed}. From left to right: "
        f"{', '.join(PARTS.values())}. "
        "The activation and the pseudo-mask are those of the class that the classifier predicts; a colour is a class, "
        "black is background; in the last map white is background. Mean share of background in these images: "
        + ", ".join(f"{names.get(n.rsplit('.', 1)[0], n)} {shares[n]:.2f}" for n in order) + ".",
        {"mean_background": shares})
