"""OpenOOD's full spectrum: the rules of ``openood``, with images of shifted ID sets on the ID side.

The caller joins the scores of the ID test images and those of the experiment's ``shifted`` sets.
"""

from __future__ import annotations

from workflow_scripts.core.specs import RuleSpec
from workflow_scripts.metrics.rules.openood import ood

__all__ = ["SPEC", "ood"]

SPEC = RuleSpec(
    columns=("fpr95_ood", "auroc", "aupr_in", "aupr_out"),
    says="Full spectrum: covariate-shifted ID images count as ID; OOD is positive; FPR95 at the first corner of the "
         "ROC curve with a recall of at least 95 %; AUPR by trapezoids.")
