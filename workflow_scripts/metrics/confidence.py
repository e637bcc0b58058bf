"""Metrics of the ID task: accuracy, calibration, and whether a score puts misclassified images last.

Any OOD score serves as confidence (higher = more certain); positive is a correct prediction except where a metric says
errors. Sources: AURC and E-AURC, Geifman et al. (ICLR 2019); AUGRC, Traub et al. (NeurIPS 2024); ECE, Guo et al. (ICML
2017), 15 bins; the selection is that of G-OE's ID task.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workflow_scripts.core.errors import OODError
from workflow_scripts.metrics.ood import Curve, average_precision, checked, count, fpr95

BINS = 15


def predict(logits: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Class and its softmax probability. logits (N, K), any float type -> (N,) int64 and (N,) float64 in (0, 1].

    Raises:
        OODError: not (N, K) with K >= 1, or NaN or infinite logits.
    """
    values = np.asarray(logits, dtype=np.float64)  # (N, K)
    if values.ndim != 2 or values.shape[1] == 0:
        raise OODError(f"logits: expected shape (N, K); found {values.shape}")
    if not np.isfinite(values).all():
        raise OODError("logits: expected finite values, found NaN or infinite ones; the network has diverged")
    predicted = values.argmax(axis=1)
    top = values.max(axis=1, keepdims=True)  # (N, 1)
    return predicted, 1 / np.exp(values - top).sum(axis=1)


def ece(probability: ArrayLike, correct: ArrayLike) -> float:
    """Expected calibration error: mean over images of |accuracy - mean probability| of their bin.

    15 bins of equal width, (lo, hi]; a probability of exactly 0 joins the first. probability (N,) in [0, 1], correct
    (N,) 0/1 or bool.

    Raises:
        OODError: a probability outside [0, 1], lengths that differ, NaN, or an empty set.
    """
    probability = checked(probability, "probabilities")
    if probability.min() < 0 or probability.max() > 1:
        raise OODError(f"probabilities: expected values in [0, 1], found {probability.min()} to {probability.max()}")
    gap = probability - _mask(correct, probability.size)
    return float(np.abs(np.bincount(_bins(probability), weights=gap, minlength=BINS)).sum()) / probability.size


def _bins(probability: NDArray[np.float64]) -> NDArray[np.int64]:
    """The bin of each probability. (N,) -> (N,)."""
    return np.searchsorted(np.arange(1, BINS) / BINS, probability, side="left")


@dataclass(frozen=True)
class Calibration:
    """The bins of :func:`ece`: mean ``probability``, ``accuracy``, ``count`` of images, each (15,); NaN in the first
    two where a bin is empty."""

    probability: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    count: NDArray[np.int64]


def calibration(probability: NDArray[np.float64], correct: NDArray[np.bool_]) -> Calibration:
    """probability, correct (N,) -> the bins of the expected calibration error."""
    bins = _bins(probability)
    count = np.bincount(bins, minlength=BINS)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(bins, weights=values, minlength=BINS) / count for values in (probability, correct)]
    return Calibration(*means, count)


def errors_curve(confidence: ArrayLike, correct: ArrayLike) -> Curve:
    """The curve with correct predictions positive and misclassified images negative; one side may be empty.

    Raises:
        OODError: lengths that differ, correctness that is not 0/1, NaN or infinite confidences, or an empty set.
    """
    confidence = checked(confidence, "confidence of the ID images")
    right = _mask(correct, confidence.size)
    return count(confidence[right], confidence[~right])


def _mask(correct: ArrayLike, expected: int) -> NDArray[np.bool_]:
    values = np.asarray(correct)
    if values.shape != (expected,):
        raise OODError(f"correctness of the ID images: expected {expected} values, as many as confidences; "
                       f"found shape {values.shape}")
    if not np.isin(values, (0, 1)).all():
        raise OODError("correctness of the ID images: expected only 0 and 1 (or bool)")
    return values.astype(bool)


def aurc(curve: Curve) -> float:
    """Area under the risk-coverage curve: mean over i = 1..N of the error rate among the i most confident images.

    Within a tie the expected number of errors over all orders is taken, so the order of the images does not matter (the
    G-OE rule in :mod:`~workflow_scripts.metrics.compat` keeps the order instead). The papers print it times 1000.
    """
    accepted = np.concatenate(([0], curve.tp + curve.fp))
    coverage = np.arange(1, accepted[-1] + 1)
    return float(np.mean(np.interp(coverage, accepted, np.concatenate(([0], curve.fp))) / coverage))


def augrc(curve: Curve) -> float:
    """Area under the generalised risk-coverage curve: the share of all images that are accepted and wrong, over the
    coverage by trapezoids, which takes ties by their expectation.

    Equal to (1 - AUROC) r (1 - r) + r^2 / 2 with r the error rate and AUROC that of right against wrong images; in
    [0, 0.5], and unlike AURC not led by the first few images. Source: Traub et al., "Overcoming Common Flaws in the
    Evaluation of Selective Classification Systems".
    """
    accepted = np.concatenate(([0], curve.tp + curve.fp))
    wrong = np.concatenate(([0], curve.fp))
    twice = int(np.dot(np.diff(accepted), wrong[1:] + wrong[:-1]))
    return twice / (2 * int(accepted[-1]) ** 2)


def risk(curve: Curve, coverage: NDArray[np.float64]) -> NDArray[np.float64]:
    """Error rate among the most confident images at each share ``coverage`` (P,) of them; ties count by their
    expectation. -> (P,). Below one image the first image's risk is shown."""
    accepted = np.concatenate(([0], curve.tp + curve.fp))
    images = np.maximum(coverage * accepted[-1], 1)
    return np.interp(images, accepted, np.concatenate(([0], curve.fp))) / images


def excess(area: float, error_rate: float) -> float:
    """E-AURC: ``area`` (AURC) less that of a perfect ranking for many images, r + (1 - r) ln(1 - r)."""
    best = 1.0 if error_rate == 1 else error_rate + (1 - error_rate) * math.log1p(-error_rate)
    return area - best


def id_metrics(confidence: ArrayLike, correct: ArrayLike, probability: ArrayLike) -> dict[str, float]:
    """Metrics of the ID task as fractions. confidence, correct (0/1 or bool) and probability: (N,), N >= 1.

    ``accuracy`` and ``ece`` (from ``probability``, the predicted class's softmax) do not depend on the score;
    ``aurc``, ``eaurc``, ``augrc``; ``aupr_error``: average precision with errors positive and score -confidence;
    ``fpr95_error``: misclassified images still accepted when at least 95 % of the correct ones are. G-OE's README calls
    the last "FRR at 95 % TPR"; its code computes this FPR, and read literally that name would be a constant.

    NaN where undefined: ``aupr_error`` without an error, ``fpr95_error`` without an error or without a correct image.

    Raises:
        OODError: an empty set, lengths that differ, NaN or infinite values, probabilities outside [0, 1].
    """
    curve = errors_curve(confidence, correct)
    right, wrong = curve.positives, curve.negatives
    area = aurc(curve)
    return {
        "accuracy": right / (right + wrong),
        "ece": ece(probability, correct),
        "aurc": area,
        "eaurc": excess(area, wrong / (right + wrong)),
        "augrc": augrc(curve),
        "aupr_error": average_precision(curve.flipped()) if wrong else math.nan,
        "fpr95_error": fpr95(curve) if right and wrong else math.nan,
    }
