"""How the learned weights of a background spread over the epochs, and whether they follow the pretrained network."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

import h5py
import numpy as np
from annotated_types import Gt, Le
from matplotlib.figure import Figure

from workflow_scripts.core.specs import PictureSpec
from workflow_scripts.metrics import resampling
from workflow_scripts.pictures.base import Drawing, Run
from workflow_scripts.reporting import palette, plots

SPEC = PictureSpec(needs={"record", "distances"}, scope="one")


@dataclass(frozen=True)
class Options:
    ratio: Annotated[float, Gt(0), Le(1)] = 0.1
    """Share that the compared selections keep."""


def draw(options: Options, runs: list[Run], names: dict[str, str]) -> Drawing:
    run = runs[0]
    with h5py.File(run.files["record"]) as file:
        counts, edges, theta = file["histogram"][:], file["edges"][:], file["theta"][:]
        early = {int(found[1]): file[key][:] for key in file if (found := re.fullmatch(r"theta_(\d+)", key))}
    with h5py.File(run.files["distances"]) as file:
        index, kl, msp = file["index"][:], file["kl"][:], np.exp(file["log_msp"][:].astype(np.float64))
    facts = {"images": len(theta), "images_measured": len(index),
             "rank_correlation": {**{str(e): resampling.rank_correlation(t[index], kl) for e, t in early.items()},
                                  "last": resampling.rank_correlation(theta[index], kl)}}
    mean, half = resampling.kept_difference(theta[index], kl, options.ratio)
    facts["kl_learned_minus_random"] = {"mean": mean, "half_interval": half, "seeds": resampling.SEEDS}
    high, low, spread = resampling.tenths_difference(theta[index], msp)
    facts["msp_of_tenths"] = {"top": high, "bottom": low, "half_interval": spread}

    figure = Figure(figsize=(plots.WIDTH, 2.5))
    left, right = figure.subplots(1, 2, gridspec_kw={"left": 0.07, "right": 0.98, "top": 0.88, "bottom": 0.19,
                                                     "wspace": 0.2, "width_ratios": (3, 2)})
    epochs = np.flatnonzero(counts.sum(1))
    used = np.flatnonzero(counts.sum(0))
    low_bin, high_bin = max(0, used[0] - 2), min(counts.shape[1], used[-1] + 3)
    shares = counts[epochs, low_bin:high_bin] / counts[epochs].sum(1, keepdims=True)
    left.pcolormesh(np.r_[epochs, epochs[-1] + 1] + 0.5, edges[low_bin:high_bin + 1], np.sqrt(shares).T,
                    cmap="Greys", rasterized=True)
    left.set_xlabel("epoch")
    left.set_ylabel("log10 (w / mean w)", labelpad=1)
    plots.head(left, "Weights over the epochs")
    shown = np.random.default_rng(0).permutation(len(index))[:2000]
    right.plot(kl[shown], theta[index][shown], ".", markersize=2, alpha=0.5, color=palette.ID, rasterized=True)
    right.set_xlabel("KL under the pretrained network (nats)")
    right.set_ylabel("theta", labelpad=1)
    plots.head(right, "After the last epoch")
    ranks = ", ".join(f"{'last epoch' if e == 'last' else f'epoch {e}'} {r:.2f}"
                      for e, r in facts["rank_correlation"].items())
    return Drawing(
        figure, "Learned weights of the background",
        f"{names.get(run.network, run.network)} on {names.get(run.id, run.id)}, seed {run.seed}, {len(theta):,} "
        f"images. Rank correlation of theta with the divergence under the pretrained network: {ranks}. Mean divergence "
        f"of the kept images at p = {options.ratio:g}, learned minus random: {mean:+.3f} +- {half:.3f} nats (95 % "
        f"interval over {resampling.SEEDS} draws). Mean MSP of the top tenth by weight {high:.3f}, of the bottom tenth "
        f"{low:.3f} (difference +- {spread:.3f}).", facts)
