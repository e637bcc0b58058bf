"""The papers' own counting rules, to meet their printed numbers; the strict rules stand in ``ood`` and ``confidence``.

Each rule repeats what the released code computes, under the strict metrics' names and as fractions; a metric that a
release does not compute is absent. :data:`OOD_RULES` and :data:`ID_RULES` map a paper's name to its rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from workflow_scripts.core.errors import OODError
from workflow_scripts.metrics.confidence import errors_curve, excess
from workflow_scripts.metrics.ood import Counts, Curve, auroc, average_precision, checked, curve, fpr95

RATIO = 0.2  # bg-resample: OOD images per ID image in each trial
TRIALS = 5


def _nearest(tp: Counts) -> int:
    """First index whose recall tp / max(tp) lies nearest to 0.95, compared in float64 as the releases do."""
    return int(np.argmin(np.abs(tp / tp.max() - 0.95)))


def _hendrycks_fpr(curve: Curve) -> float:
    """FPR at the distinct score whose recall is nearest to 0.95 (may lie below); of equal distances the largest FPR."""
    full = int(np.searchsorted(curve.tp, curve.positives))  # thresholds past full recall are not considered
    return int(curve.fp[full::-1][_nearest(curve.tp[full::-1])]) / curve.negatives


def himplos(id_scores: ArrayLike, ood_scores: ArrayLike) -> dict[str, float]:
    """HIMPLoS and DFB (``get_measures``): ID positive, AP both ways, FPR at the recall nearest to 0.95."""
    joined = curve(id_scores, ood_scores)
    return {"auroc": auroc(joined), "fpr95": _hendrycks_fpr(joined), "aupr_in": average_precision(joined),
            "aupr_out": average_precision(joined.flipped())}


def npos(id_scores: ArrayLike, ood_scores: ArrayLike) -> dict[str, float]:
    """NPOS (``display_results``): the rule of HIMPLoS without the OOD-positive AP."""
    joined = curve(id_scores, ood_scores)
    return {"auroc": auroc(joined), "fpr95": _hendrycks_fpr(joined), "aupr_in": average_precision(joined)}


def bg_resample_trial(id_scores: ArrayLike, ood_scores: ArrayLike) -> dict[str, float]:
    """One trial of background resampling, on all the scores given: OOD positive.

    The FPR counts ID scores at or below the linearly interpolated 95 % quantile of the OOD scores.
    """
    known, novel = checked(id_scores, "ID scores"), checked(ood_scores, "OOD scores")
    joined = curve(known, novel)
    return {"auroc": auroc(joined), "fpr95_ood": float(np.mean(known <= np.quantile(novel, 0.95))),
            "aupr_out": average_precision(joined.flipped())}


def bg_resample(id_scores: ArrayLike, ood_scores: ArrayLike, seed: int = 0) -> dict[str, float]:
    """Background resampling: mean of five trials, each on a random 0.2 N of the M OOD images, without replacement.

    The release draws unseeded; here ``seed`` makes it repeatable. AUPR belongs to the ratio 1 : 5.

    Raises:
        OODError: fewer than 5 ID images, or fewer OOD images than a trial draws.
    """
    known, novel = checked(id_scores, "ID scores"), checked(ood_scores, "OOD scores")
    draw = ood_images("bg-resample", known.size, novel.size)
    if not 0 < draw <= novel.size:
        raise OODError(f"compat 'bg-resample': a trial takes 20 % as many OOD as ID images, here {draw}; "
                       f"found {novel.size} OOD images; use larger sets or take 'bg-resample' out of the compat list")
    rng = np.random.default_rng(seed)
    trials = [bg_resample_trial(known, rng.choice(novel, draw, replace=False)) for _ in range(TRIALS)]
    return {metric: math.fsum(trial[metric] for trial in trials) / TRIALS for metric in trials[0]}


def ood_images(paper: str, id_count: int, ood_count: int) -> int:
    """How many OOD images stand behind one number of ``paper``."""
    return int(RATIO * id_count) if paper == "bg-resample" else ood_count


def goe(id_scores: ArrayLike, ood_scores: ArrayLike) -> dict[str, float]:
    """G-OE, OOD task (``metrics_ood.py``): ID positive, trapezoids over a staircase that drops one image at a time.

    Scores rise; at a tie ID leaves before OOD, the worst case (all tied: AUROC 0, FPR 1). The FPR is that of the
    nearest recall to 0.95; precision ends at 0, not 1. ``f1`` is taken at the score nearest to 0.5.
    """
    known, novel = checked(id_scores, "ID scores"), checked(ood_scores, "OOD scores")
    is_id = np.argsort(np.concatenate((known, novel)), kind="stable") < known.size
    tp = known.size - np.concatenate(([0], np.cumsum(is_id)))  # (N + M + 1,), from all accepted to none
    fp = novel.size - np.concatenate(([0], np.cumsum(~is_id)))
    tpr, fpr = tp / known.size, fp / novel.size
    caught, lost = novel.size - fp, known.size - tp  # OOD and ID images rejected so far
    return {
        "auroc": float(np.trapezoid(1 - fpr[::-1], tpr[::-1])),
        "fpr95": float(fpr[_nearest(tp)]),
        "aupr_in": float(np.trapezoid(np.concatenate(([0.0], (tp[:-1] / (tp + fp)[:-1])[::-1])), tpr[::-1])),
        "aupr_out": float(np.trapezoid(np.concatenate(([0.0], caught[1:] / (caught + lost)[1:])), 1 - fpr)),
        "detection_error": 1 - float((tpr + 1 - fpr).max()) / 2,
        "f1": _f1_at_half(curve(known, novel)),
    }


def _f1_at_half(curve: Curve) -> float:
    """F1 of accepting at the score nearest to 0.5, the lower of two; ID positive."""
    at = curve.threshold.size - 1 - int(np.argmin(np.abs(curve.threshold[::-1] - 0.5)))
    tp, fp = int(curve.tp[at]), int(curve.fp[at])
    return 2 * tp / (tp + fp + curve.positives)


def _corners(curve: Curve) -> Curve:
    """The curve without thresholds on a straight run, as scikit-learn's ``roc_curve`` drops them unless told not to."""
    bend = (np.diff(curve.fp, 2) != 0) | (np.diff(curve.tp, 2) != 0)
    keep = np.concatenate(([True], bend, [True]))[:curve.tp.size]
    return Curve(curve.threshold[keep], curve.tp[keep], curve.fp[keep])


def _trapezoid_precision(curve: Curve) -> float:
    """Area under precision over recall by trapezoids from precision 1 at recall 0; overstates where scores tie."""
    precision = np.concatenate(([1.0], curve.tp / (curve.tp + curve.fp)))
    return float(np.trapezoid(precision, np.concatenate(([0], curve.tp)) / curve.positives))


def openood(id_scores: ArrayLike, ood_scores: ArrayLike) -> dict[str, float]:
    """OpenOOD since December 2023: OOD positive, first TPR >= 0.95 among the ROC's corners, trapezoids for AUPR."""
    joined = curve(id_scores, ood_scores)
    flipped = joined.flipped()
    return {"auroc": auroc(joined), "fpr95_ood": fpr95(_corners(flipped)),
            "aupr_in": _trapezoid_precision(joined), "aupr_out": _trapezoid_precision(flipped)}


def scood(id_scores: ArrayLike, ood_scores: ArrayLike) -> dict[str, float]:
    """SC-OOD's reference protocol (ICCV 2021): ID positive, trapezoids for AUPR, and a strict FPR.

    OOD images count as accepted above, not at, the ID score of rank floor(0.95 N) from the top. The ID side holds the
    ID test images and those of the OOD set's list that belong to an ID class, which the caller joins.

    Raises:
        OODError: a single ID image, of which 95 % is none.
    """
    known, novel = checked(id_scores, "ID scores"), checked(ood_scores, "OOD scores")
    rank = 95 * known.size // 100
    if not rank:
        raise OODError("compat 'scood': 95 % of one ID image is none; use a larger ID test set")
    joined = curve(known, novel)
    threshold = np.partition(known, known.size - rank)[known.size - rank]
    return {"auroc": auroc(joined), "fpr95": float(np.mean(novel > threshold)),
            "aupr_in": _trapezoid_precision(joined), "aupr_out": _trapezoid_precision(joined.flipped())}


def goe_id(confidence: ArrayLike, correct: ArrayLike) -> dict[str, float]:
    """G-OE, ID task (``metrics_id.py``): confidence (N,), correct (N,) 0/1 or bool.

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
    corners = _corners(curve)
    return metrics | {
        "auroc_correct": auroc(curve),
        "aupr_correct": average_precision(curve),
        "aupr_error": average_precision(curve.flipped()),
        "fpr95_error": int(corners.fp[_nearest(corners.tp)]) / curve.negatives,
    }


OOD_RULES: dict[str, Callable[[ArrayLike, ArrayLike], dict[str, float]]] = {
    "bg-resample": bg_resample, "dfb": himplos, "goe": goe, "himplos": himplos, "npos": npos, "openood": openood,
    "scood": scood,
}
ID_RULES: dict[str, Callable[[ArrayLike, ArrayLike], dict[str, float]]] = {"goe": goe_id}
