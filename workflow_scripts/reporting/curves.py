"""What the figures draw, as arrays: score files, histograms, ROC curves. No plotting here, no metric is computed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.files import not_to_blame
from workflow_scripts.metrics.ood import at95, auroc, curve, roc


def read_scores(path: str | Path, id_name: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A score file as (ID test scores (N,), {OOD set: scores (M,)}), float64, higher = more ID.

    Raises:
        OODError: no ID set in it, an empty set, or a score that is not finite.
    """
    sets: dict[str, np.ndarray] = {}
    try:
        with h5py.File(path, "r") as file:
            for name in file:
                dataset, _, split = name.rpartition(".")
                if dataset != id_name or split == "test":
                    sets[dataset] = np.asarray(file[name], dtype=np.float64)
    except OSError as error:
        not_to_blame(path, error)
        raise OODError(f"{path}: expected an HDF5 file of scores, cannot read it ({error}); delete it and run again"
                       ) from None
    if id_name not in sets:
        raise OODError(f"{path}: expected the scores of '{id_name}.test', found {sorted(sets)}; "
                       "delete it and run again")
    for name, values in sets.items():
        if not values.size or not np.isfinite(values).all():
            raise OODError(f"{path}: expected finite scores for '{name}', found {values.size} of which "
                           f"{np.count_nonzero(~np.isfinite(values))} are not finite; delete it and run again")
    return sets.pop(id_name), sets


def thin(fpr: np.ndarray, tpr: np.ndarray, points: int = 160) -> tuple[np.ndarray, np.ndarray]:
    """At most about ``points`` of a curve's points, spread evenly over its length; the ends stay."""
    if fpr.size <= points:
        return fpr, tpr
    length = np.cumsum(np.abs(np.diff(fpr, prepend=0)) + np.abs(np.diff(tpr, prepend=0)))
    keep = np.unique(np.searchsorted(length, np.linspace(0, length[-1], points)).clip(0, fpr.size - 1))
    keep = np.union1d(keep, [0, fpr.size - 1])
    return fpr[keep], tpr[keep]


@dataclass(frozen=True)
class Histogram:
    """ID against one OOD set: densities (B,) over shared ``edges`` (B+1,); the outermost bins hold what lies beyond."""

    dataset: str
    group: str
    edges: np.ndarray
    id_density: np.ndarray
    ood_density: np.ndarray
    threshold: float
    auroc: float


def histograms(id_scores: np.ndarray, sets: dict[str, np.ndarray], groups: dict[str, list[str]]
               ) -> list[Histogram]:
    """One panel per OOD set that has scores, in the order of ``groups``; one axis for all, so panels compare.

    The axis spans the central 98 % of ID and of every set, but at most three times the ID span on either side.
    """
    order = [(dataset, group) for group, names in groups.items() for dataset in names if dataset in sets]
    shown = [id_scores, *(sets[dataset] for dataset, _ in order)]
    low, high = np.array([np.percentile(s, [1, 99]) for s in shown]).T
    reach = 3 * max(high[0] - low[0], 1e-9)
    left, right = max(low.min(), low[0] - reach), min(high.max(), high[0] + reach)
    bins = int(np.clip(2 * np.sqrt(min(s.size for s in shown)), 12, 48))
    edges = np.linspace(left, max(right, left + 1e-9), bins + 1)

    def density(scores: np.ndarray) -> np.ndarray:
        return np.histogram(scores.clip(edges[0], edges[-1]), edges)[0] / scores.size

    panels = []
    for dataset, group in order:
        joined = curve(id_scores, sets[dataset])
        panels.append(Histogram(dataset, group, edges, density(id_scores), density(sets[dataset]),
                                float(joined.threshold[at95(joined)]), auroc(joined)))
    return panels


@dataclass(frozen=True)
class Roc:
    """One OOD set: per score its curve, its AUROC and its point at 95 % TPR (ID positive)."""

    dataset: str
    group: str
    curves: dict[str, tuple[np.ndarray, np.ndarray]]
    auroc: dict[str, float]
    at95: dict[str, tuple[float, float]]


def rocs(scores: dict[str, tuple[np.ndarray, dict[str, np.ndarray]]], groups: dict[str, list[str]]) -> list[Roc]:
    """One panel per OOD set; ``scores`` maps a score's name to what :func:`read_scores` returns."""
    panels = []
    for group, names in groups.items():
        for dataset in names:
            found = {score: curve(id_scores, sets[dataset]) for score, (id_scores, sets) in scores.items()
                     if dataset in sets}
            if found:
                points = {score: roc(joined) for score, joined in found.items()}
                at = {score: at95(joined) + 1 for score, joined in found.items()}  # the points begin before it
                panels.append(Roc(dataset, group, {s: thin(*of) for s, of in points.items()},
                                  {s: auroc(joined) for s, joined in found.items()},
                                  {s: (float(points[s][0][i]), float(points[s][1][i])) for s, i in at.items()}))
    return panels
