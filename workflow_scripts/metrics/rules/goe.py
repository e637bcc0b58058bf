"""G-OE (``metrics_ood.py``, ``metrics_id.py``): ID positive, trapezoids, ties ordered to the method's disadvantage."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from workflow_scripts.core.specs import RuleSpec
from workflow_scripts.metrics.confidence import errors_curve, excess
from workflow_scripts.metrics.ood import auroc, average_precision, checked, curve
from workflow_scripts.metrics.rules.base import corners, nearest

SPEC = RuleSpec(
    columns=("fpr95", "auroc", "aupr_in", "aupr_out"),
    id_columns=("accuracy", "aurc@goe", "fpr95_error@goe"),
    says="ID is positive; FPR95 at the recall nearest to 95 %; AUPR by trapezoids whose ends lie at 0.5 and 0; tied "
         "scores in the order worst for the method. FPR95 (errors) is what its README calls FRR at 95 % TPR.",
    defects={"goe.2g-8": (
        "tied scores are ordered to the method's disadvantage", "metrics: G-OE's own rules (`auroc@goe`, ...)")})


def ood(id_scores: ArrayLike, ood_scores: ArrayLike) -> dict[str, float]:
    """OOD task: ID positive, trapezoids over a staircase that drops one image at a time.

    Scores rise; at a tie ID leaves before OOD, the worst case (all tied: AUROC 0, FPR 1). The FPR is that of the
    nearest recall to 0.95; precision ends at 0, not 1.
    """
    id_scores, ood_scores = checked(id_scores, "ID scores"), checked(ood_scores, "OOD scores")
    is_id = np.argsort(np.concatenate((id_scores, ood_scores)), kind="stable") < id_scores.size
    tp = id_scores.size - np.concatenate(([0], np.cumsum(is_id)))  # (N + M + 1,), from all accepted to none
    fp = ood_scores.size - np.concatenate(([0], np.cumsum(~is_id)))
    tpr, fpr = tp / id_scores.size, fp / ood_scores.size
    caught, lost = ood_scores.size - fp, id_scores.size - tp  # OOD and ID images rejected so far
    return {
        "auroc": float(np.trapezoid(1 - fpr[::-1], tpr[::-1])),
        "fpr95": float(fpr[nearest(tp)]),
        "aupr_in": float(np.trapezoid(np.concatenate(([0.0], (tp[:-1] / (tp + fp)[:-1])[::-1])), tpr[::-1])),
        "aupr_out": float(np.trapezoid(np.concatenate(([0.0], caught[1:] / (caught + lost)[1:])), 1 - fpr)),
        "detection_error": 1 - float((tpr + 1 - fpr).max()) / 2,
    }


def thresholded(id_confidence: ArrayLike, ood_confidence: ArrayLike) -> dict[str, float]:
    """F1 of accepting at the confidence nearest to 0.5, the lower of two; ID positive.

    Confidences as the release has them, (N,) and (M,): probability, margin of two probabilities, negative entropy in
    nats, log-sum-exp of the logits. Of the last two, 0.5 is no sensible threshold; it is the release's all the same.
    """
    joined = curve(id_confidence, ood_confidence)
    at = joined.threshold.size - 1 - int(np.argmin(np.abs(joined.threshold[::-1] - 0.5)))
    tp, fp = int(joined.tp[at]), int(joined.fp[at])
    return {"f1": 2 * tp / (tp + fp + joined.positives)}


def confidence(confidence: ArrayLike, correct: ArrayLike) -> dict[str, float]:
    """ID task: confidence (N,), correct (N,) 0/1 or bool.

    AURC leaves ties in the order of the images; the FPR is that of the ROC corner whose TPR is nearest to 0.95.
    ``auroc_correct`` and ``aupr_correct`` have correct predictions as positive. Without an error or a correct image all
    but AURC and E-AURC are NaN.

    Raises:
        OODError: see :func:`~workflow_scripts.metrics.confidence.errors_curve`.
    """
    curve = errors_curve(confidence, correct)
    falling = np.argsort(-np.asarray(confidence, dtype=np.float64), kind="stable")
    wrong = ~np.asarray(correct, dtype=bool)[falling]
    area = float(np.mean(np.cumsum(wrong) / np.arange(1, wrong.size + 1)))
    metrics = {"aurc": area, "eaurc": excess(area, float(wrong.mean()))}
    if wrong.all() or not wrong.any():
        return metrics | dict.fromkeys(("auroc_correct", "aupr_correct", "aupr_error", "fpr95_error"), math.nan)
    bends = corners(curve)
    return metrics | {
        "auroc_correct": auroc(curve),
        "aupr_correct": average_precision(curve),
        "aupr_error": average_precision(curve.flipped()),
        "fpr95_error": int(bends.fp[nearest(bends.tp)]) / curve.negatives,
    }
