"""The section of :mod:`workflow_scripts.stages.select_best_recipe`."""

from __future__ import annotations

from typing import Literal

from workflow_scripts.methods.recipe import Validation
from workflow_scripts.networks.architecture import Pass


class SelectBestRecipe(Pass):
    """The candidates, what is best, and the forward pass over held-out images."""

    candidates: list[str]
    """Names of the recipes, in the order of --checkpoints."""
    by: Literal["auroc", "fpr95", "aupr_in", "aupr_out", "detection_error", "accuracy", "aurc"]
    """What is best."""
    validation: Validation | None
    """The held-out ID train images; without any there is nothing to choose by."""
