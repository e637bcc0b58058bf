"""HIMPLoS on the test sets over its two options: the percentile p of the mask, and the clip lambda."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import h5py
import numpy as np
from annotated_types import Gt, Interval, MinLen
from matplotlib.axes import Axes

from workflow_scripts.core.errors import OODError, unknown
from workflow_scripts.core.specs import PictureSpec
from workflow_scripts.metrics.ood import auroc, curve, fpr95
from workflow_scripts.pictures.base import Drawing, Run
from workflow_scripts.reporting import palette, plots
from workflow_scripts.scores import cached, himplos
from workflow_scripts.scores.base import Batch, Known

SPEC = PictureSpec(needs={"scores", "head", "statistics", "test_features", "ood_features"}, scope="all")
MEASURES = {"AUROC": auroc, "FPR95": fpr95}


@dataclass(frozen=True)
class Options:
    score: str = "himplos"
    """Score of the module `himplos`; while one option varies, the other is what this score has for the network."""
    p: Annotated[tuple[Annotated[float, Interval(ge=0, le=100)], ...], MinLen(2)] = (
        0, 10, 20, 30, 40, 50, 60, 70, 80, 90)
    """Percentiles of the mask."""
    clip: Annotated[tuple[Annotated[float, Gt(0)], ...], MinLen(2)] = (
        0.1, 0.2, 0.5, 0.8, 1.0, 1.6, 2.25, float("inf"))
    """Clips (lambda); .inf clips nothing."""


def draw(options: Options, runs: list[Run], names: dict[str, str]) -> Drawing:
    places: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        places.setdefault((run.id, run.network, run.label), []).append(run)
    figure, axes = plots.panels(2 * len(places), 2, height=1.5, gap=0.75, bottom=0.5, left=0.07, wspace=0.14)
    facts: dict[str, Any] = {}
    for row, ((id, network, label), members) in enumerate(places.items()):
        own = {run.seed: chosen(run, options.score) for run in members}
        found = [swept(run, own[run.seed], options) for run in members]
        facts["/".join((id, network, members[0].recipe))] = {
            name: {f"{value:g}": {measure: [one[name][value][measure] for one in found] for measure in MEASURES}
                   for value in getattr(options, name)} for name in ("p", "clip")}
        for column, name in enumerate(("p", "clip")):
            axis = axes[2 * row + column]
            lines(axis, getattr(options, name), [one[name] for one in found])
            other = {"p": "clip", "clip": "p"}[name]
            held = sorted({getattr(one, other) for one in own.values()})
            plots.head(axis, f"{names.get(id, id)}, {names.get(network, network)}" if column == 0 else label,
                       f"{TITLES[other]} = {', '.join(f'{value:g}' for value in held)}")
            axis.set_xlabel(f"{TITLES[name]}{' (percentile)' if name == 'p' else ''}")
    axes[0].set_ylabel("mean over OOD sets (%)", labelpad=1)
    plots.legend(figure, axes[0].get_legend_handles_labels()[0], 2)
    seeds = sorted({run.seed for run in runs})
    return Drawing(figure, "HIMPLoS over the percentile of its mask and its clip",
                   f"AUROC and FPR95 on the test sets, mean over the OOD sets of each network; a dash for each of the "
                   f"{len(seeds)} seed(s), the line joins their means. Left the percentile p varies, right the clip "
                   "lambda, the other as the score has it. Test sets are looked at here, not to choose by.", facts)


TITLES = {"p": "p", "clip": "lambda"}


def chosen(run: Run, score: str) -> himplos.Options:
    """The options that a network's score was computed with.

    Raises:
        OODError: there is no such score, or it is no HIMPLoS.
    """
    files = {Path(path).stem: path for path in run.files["scores"]}
    if score not in files:
        raise unknown("picture mask_and_clip, options.score", score, files)
    with h5py.File(files[score]) as file:
        module, options = file.attrs["score"], json.loads(file.attrs["options"])
    if module != "himplos":
        raise OODError(f"picture mask_and_clip, options.score: '{score}' is of module '{module}', expected himplos")
    return himplos.Options(**options)


def swept(run: Run, own: himplos.Options, options: Options) -> dict[str, dict[float, dict[str, float]]]:
    """AUROC and FPR95 of a network over each option, the mean over its OOD sets: option -> value -> measure -> mean."""
    head, _ = cached.head(Path(run.files["head"]))
    known = Known(head=head, statistics=cached.statistics(Path(run.files["statistics"]), head.weight.shape))
    points = {(name, value): replace(own, **{name: value})
              for name in ("p", "clip") for value in getattr(options, name)}
    states = {value: himplos.head_mask(value, known.head) for value in {point.p for point in points.values()}}

    def scores(path: str, name: str) -> dict[tuple[str, float], np.ndarray]:
        parts: dict[tuple[str, float], list[np.ndarray]] = {key: [] for key in points}
        with cached.Features(Path(path), name) as file:
            for rows in file.chunks():
                batch = Batch(features=file.read("features", rows))
                for key, point in points.items():
                    parts[key].append(himplos.score(point, known, states[point.p], batch))
        return {key: np.concatenate(part) for key, part in parts.items()}

    inside = scores(run.files["test_features"], f"{run.id}.test")
    sets = dict.fromkeys((path, name) for path in run.files["ood_features"] for name in cached.sets(Path(path)))
    compared = [{key: curve(inside[key], values) for key, values in scores(*one).items()} for one in sets]
    return {name: {value: {measure: float(np.mean([of(one[name, value]) for one in compared]))
                           for measure, of in MEASURES.items()} for value in getattr(options, name)}
            for name in ("p", "clip")}


def lines(axis: Axes, values: tuple[float, ...], found: list[dict[float, dict[str, float]]]) -> None:
    """A line for each measure over the values, which stand at equal distances."""
    at = range(len(values))
    for i, measure in enumerate(MEASURES):
        rows = [[100 * one[value][measure] for one in found] for value in values]
        axis.plot(at, [np.mean(row) for row in rows], color=palette.SERIES[i], linestyle=palette.DASHES[i], marker="o",
                  markersize=3, linewidth=1.3, label=measure)
        for x, row in zip(at, rows, strict=True):
            axis.plot([x] * len(row), row, "_", color=palette.SERIES[i], alpha=0.6)
    axis.set_xticks(list(at))
    axis.set_xticklabels(["∞" if value == float("inf") else f"{value:g}" for value in values])
