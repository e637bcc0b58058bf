"""DFB: the rule of HIMPLoS (``get_measures``)."""

from __future__ import annotations

from workflow_scripts.core.specs import RuleSpec
from workflow_scripts.metrics.rules import himplos

SPEC = RuleSpec()
ood = himplos.ood
