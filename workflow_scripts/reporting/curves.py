"""What the figures draw, as arrays: score files, histograms, ROC curves. No plotting here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from workflow_scripts.core.errors import OODError


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


def threshold95(id_scores: np.ndarray) -> float:
    """The highest score at which at least 95 % of the ID images are accepted (score >= threshold). (N,) -> scalar."""
    accepted = -(-95 * id_scores.size // 100)  # ceil(0.95 N) in integers
    return float(np.partition(id_scores, id_scores.size - accepted)[id_scores.size - accepted])


def roc(id_scores: np.ndarray, ood_scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ROC curve with ID positive: (false positive rate, true positive rate), both (T,), from (0, 0) to (1, 1).

    One point per distinct score, highest first; ties leave together.
    """
    cuts = np.unique(np.concatenate([id_scores, ood_scores]))[::-1]
    fpr, tpr = (1 - np.searchsorted(np.sort(s), cuts, side="left") / s.size for s in (ood_scores, id_scores))
    return np.concatenate([[0.0], fpr]), np.concatenate([[0.0], tpr])


def auroc(fpr: np.ndarray, tpr: np.ndarray) -> float:
    """Area under a ROC curve; exact, since ties are one point."""
    return float(np.trapezoid(tpr, fpr))


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

    at, id_density = threshold95(id_scores), density(id_scores)
    return [Histogram(dataset, group, edges, id_density, density(sets[dataset]), at,
                      auroc(*roc(id_scores, sets[dataset]))) for dataset, group in order]


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
            found = {score: roc(id_scores, sets[dataset]) for score, (id_scores, sets) in scores.items()
                     if dataset in sets}
            if found:
                at = {score: int(np.argmax(tpr >= 0.95)) for score, (_, tpr) in found.items()}
                panels.append(Roc(dataset, group, {s: thin(*curve) for s, curve in found.items()},
                                  {s: auroc(*curve) for s, curve in found.items()},
                                  {s: (float(found[s][0][i]), float(found[s][1][i])) for s, i in at.items()}))
    return panels
