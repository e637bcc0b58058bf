"""OpenOOD since December 2023: OOD positive, first TPR >= 0.95 among the ROC's corners, trapezoids for AUPR."""

from __future__ import annotations

from numpy.typing import ArrayLike

from workflow_scripts.core.specs import RuleSpec
from workflow_scripts.metrics.ood import auroc, curve, fpr95
from workflow_scripts.metrics.rules.base import corners, trapezoid_precision

SPEC = RuleSpec()


def ood(id_scores: ArrayLike, ood_scores: ArrayLike) -> dict[str, float]:
    """OOD positive, first TPR >= 0.95 among the ROC's corners, trapezoids for AUPR."""
    joined = curve(id_scores, ood_scores)
    flipped = joined.flipped()
    return {"auroc": auroc(joined), "fpr95_ood": fpr95(corners(flipped)),
            "aupr_in": trapezoid_precision(joined), "aupr_out": trapezoid_precision(flipped)}
