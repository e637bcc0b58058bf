"""NPOS (``display_results``): the rule of HIMPLoS without the OOD-positive average precision."""

from __future__ import annotations

from numpy.typing import ArrayLike

from workflow_scripts.core.specs import RuleSpec
from workflow_scripts.metrics.ood import auroc, average_precision, curve
from workflow_scripts.metrics.rules.base import hendrycks_fpr

SPEC = RuleSpec(
    columns=("fpr95", "auroc", "aupr_in"),
    says="ID is positive; FPR95 at the recall nearest to 95 %; AUPR is average precision.")


def ood(id_scores: ArrayLike, ood_scores: ArrayLike) -> dict[str, float]:
    """The rule of HIMPLoS without the OOD-positive AP."""
    joined = curve(id_scores, ood_scores)
    return {"auroc": auroc(joined), "fpr95": hendrycks_fpr(joined), "aupr_in": average_precision(joined)}
