"""OOD-detection metrics from one sort of the joined scores.

ID and OOD scores -> :class:`Curve` (accepted images at every distinct score, exact integers) -> AUROC, FPR at 95 % TPR,
average precision and detection error. Each metric says which side is positive. Equal scores form one threshold, so no
result depends on the order of the images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workflow_scripts.core.errors import OODError

Counts = NDArray[np.int64]


def checked(scores: ArrayLike, what: str) -> NDArray[np.float64]:
    """``scores`` (N,) of any real type as float64; ``what`` names them in errors.

    Raises:
        OODError: not one-dimensional, not numbers, empty, or with NaN or infinite values.
    """
    values = np.asarray(scores)
    if values.ndim != 1:
        raise OODError(f"{what}: expected one score per image, shape (N,); found shape {values.shape}")
    if values.dtype.kind not in "fiu":
        raise OODError(f"{what}: expected real numbers, found {values.dtype}")
    if values.size == 0:
        raise OODError(f"{what}: expected at least one image, found an empty set")
    values = values.astype(np.float64, copy=False)
    bad = ~np.isfinite(values)
    if bad.any():
        first = int(np.argmax(bad))
        raise OODError(f"{what}: expected finite values, found {int(bad.sum())} NaN or infinite of {values.size} "
                       f"(first: {values[first]} at index {first}); mend what computed them, do not drop the images")
    return values


@dataclass(frozen=True)
class Curve:
    """Accepted images per threshold, from the strictest threshold to the one that accepts all. T distinct scores.

    ``threshold`` (T,) float64, strictly falling; ``tp`` and ``fp`` (T,) int64: positive and negative images with a
    score >= the threshold. Positive is ID, or a correct prediction in the ID task, unless :meth:`flipped`.
    """

    threshold: NDArray[np.float64]
    tp: Counts
    fp: Counts

    @property
    def positives(self) -> int:
        return int(self.tp[-1])

    @property
    def negatives(self) -> int:
        return int(self.fp[-1])

    def flipped(self) -> Curve:
        """The same images with the negative side as positive and the scores negated."""
        return Curve(-self.threshold[::-1], (self.negatives - _before(self.fp))[::-1],
                     (self.positives - _before(self.tp))[::-1])


def _before(counts: Counts) -> Counts:
    """(T,) the count at the threshold before; 0 at the first."""
    return np.concatenate(([0], counts[:-1]))


def count(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> Curve:
    """The curve of two sets of finite scores, (P,) and (N,); one of them may be empty.

    Each side is sorted alone; merging two sorted runs is then linear for a stable sort, which makes the whole faster
    than sorting the joined scores.
    """
    joined = np.concatenate((np.sort(positive), np.sort(negative)))
    order = np.argsort(joined, kind="stable")  # ascending
    ascending = joined[order]
    first = np.concatenate(([True], ascending[1:] != ascending[:-1]))  # first image of each distinct score
    start = np.flatnonzero(first)
    is_positive = order < positive.size
    below = (np.cumsum(is_positive) - is_positive)[start]  # positives strictly below each distinct score
    return Curve(ascending[start][::-1], (positive.size - below)[::-1], (negative.size - (start - below))[::-1])


def curve(id_scores: ArrayLike, ood_scores: ArrayLike) -> Curve:
    """The curve with ID positive. id_scores (N,), ood_scores (M,), higher = more ID; N, M >= 1.

    Raises:
        OODError: see :func:`checked`.
    """
    return count(checked(id_scores, "ID scores"), checked(ood_scores, "OOD scores"))


def auroc(curve: Curve) -> float:
    """P(positive > negative) + P(equal) / 2, in exact integers. Unchanged by :meth:`Curve.flipped`."""
    twice = int(np.dot(np.diff(curve.fp, prepend=0), curve.tp + _before(curve.tp)))
    return twice / (2 * curve.positives * curve.negatives)


def needed(positives: int) -> int:
    """The fewest accepted positives with TPR >= 0.95."""
    return -(-19 * positives // 20)


def at95(curve: Curve) -> int:
    """Index of the first (highest) threshold whose TPR is >= 0.95."""
    return int(np.searchsorted(curve.tp, needed(curve.positives)))


def fpr95(curve: Curve) -> float:
    """Share of negatives accepted at the first (highest) threshold whose TPR is >= 0.95."""
    return int(curve.fp[at95(curve)]) / curve.negatives


def roc(curve: Curve) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points of the ROC curve, one per threshold: (false positive rate, true positive rate), both (T + 1,), from (0, 0)
    to (1, 1)."""
    fpr, tpr = (np.concatenate(([0], counts)) / counts[-1] for counts in (curve.fp, curve.tp))
    return fpr, tpr


def average_precision(curve: Curve) -> float:
    """Sum over thresholds of precision times the step in recall: the step-wise area, no interpolation."""
    steps = np.diff(curve.tp, prepend=0)
    return float(np.dot(steps, curve.tp / (curve.tp + curve.fp))) / curve.positives


def detection_error(curve: Curve) -> float:
    """Least balanced error, 1 - max 0.5 (TPR + TNR): both sides weigh the same whatever their sizes. In [0, 0.5]."""
    positives, negatives = curve.positives, curve.negatives
    gap = int((curve.tp * negatives - curve.fp * positives).max())
    return 0.5 * (1 - gap / (positives * negatives))


def ood_metrics(id_scores: ArrayLike, ood_scores: ArrayLike) -> dict[str, float]:
    """The strict OOD metrics as fractions. id_scores (N,), ood_scores (M,), higher = more ID; N, M >= 1.

    ``auroc``; ``fpr95``: OOD accepted when at least 95 % of ID is (ID positive, most papers); ``fpr95_ood``: ID
    rejected when at least 95 % of OOD is (OOD positive, background resampling and OpenOOD since August 2023), another
    quantity; ``aupr_in`` and ``aupr_out``: average precision with ID, with OOD positive, both depend on N : M;
    ``detection_error``.

    Raises:
        OODError: an empty set, a wrong shape, NaN or infinite scores.
    """
    joined = curve(id_scores, ood_scores)
    flipped = joined.flipped()
    return {
        "auroc": auroc(joined),
        "fpr95": fpr95(joined),
        "fpr95_ood": fpr95(flipped),
        "aupr_in": average_precision(joined),
        "aupr_out": average_precision(flipped),
        "detection_error": detection_error(joined),
    }
