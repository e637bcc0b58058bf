"""DFB: the rule of HIMPLoS (``get_measures``)."""

from __future__ import annotations

from workflow_scripts.core.specs import RuleSpec
from workflow_scripts.metrics.rules import himplos

SPEC = RuleSpec(
    columns=("fpr95", "auroc", "aupr_in", "aupr_out"),
    says="ID is positive; FPR95 at the recall nearest to 95 %; AUPR is average precision.")
ood = himplos.ood
