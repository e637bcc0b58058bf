"""OpenOOD since December 2023: OOD positive, first TPR >= 0.95 among the ROC's corners, trapezoids for AUPR."""

from __future__ import annotations

from numpy.typing import ArrayLike

from workflow_scripts.core.specs import RuleSpec
from workflow_scripts.metrics.ood import auroc, curve, fpr95
from workflow_scripts.metrics.rules.base import corners, trapezoid_precision

SPEC = RuleSpec(
    columns=("fpr95_ood", "auroc", "aupr_in", "aupr_out"),
    says="OOD is positive; FPR95 at the first corner of the ROC curve with a recall of at least 95 %; AUPR "
         "by trapezoids.")


def ood(id_scores: ArrayLike, ood_scores: ArrayLike) -> dict[str, float]:
    """OOD positive, first TPR >= 0.95 among the ROC's corners, trapezoids for AUPR."""
    joined = curve(id_scores, ood_scores)
    flipped = joined.flipped()
    return {"auroc": auroc(joined), "fpr95_ood": fpr95(corners(flipped)),
            "aupr_in": trapezoid_precision(joined), "aupr_out": trapezoid_precision(flipped)}
