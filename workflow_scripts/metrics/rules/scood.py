"""SC-OOD's reference protocol (ICCV 2021): ID positive, trapezoids for AUPR, and a strict FPR."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.specs import RuleSpec
from workflow_scripts.metrics.ood import auroc, checked, curve
from workflow_scripts.metrics.rules.base import trapezoid_precision

SPEC = RuleSpec(
    columns=("fpr95", "auroc", "aupr_in", "aupr_out"),
    says="ID is positive; images of an OOD set that SC-OOD's lists give an ID class count as ID; FPR95 above "
         "the ID score of rank 95 %; AUPR by trapezoids.")


def ood(id_scores: ArrayLike, ood_scores: ArrayLike) -> dict[str, float]:
    """ID positive, trapezoids for AUPR, and a strict FPR.

    OOD images count as accepted above, not at, the ID score of rank floor(0.95 N) from the top. The ID side holds the
    ID test images and those of the OOD set's list that belong to an ID class, which the caller joins.

    Raises:
        OODError: a single ID image, of which 95 % is none.
    """
    id_scores, ood_scores = checked(id_scores, "ID scores"), checked(ood_scores, "OOD scores")
    rank = 95 * id_scores.size // 100
    if not rank:
        raise OODError("compat 'scood': 95 % of one ID image is none; use a larger ID test set")
    joined = curve(id_scores, ood_scores)
    threshold = np.partition(id_scores, id_scores.size - rank)[id_scores.size - rank]
    return {"auroc": auroc(joined), "fpr95": float(np.mean(ood_scores > threshold)),
            "aupr_in": trapezoid_precision(joined), "aupr_out": trapezoid_precision(joined.flipped())}
