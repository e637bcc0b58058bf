"""What :mod:`workflow_scripts.stages.choose_recipe` is told."""

from __future__ import annotations

from typing import Literal

from workflow_scripts.methods.recipe import Validation
from workflow_scripts.networks.architecture import Pass


class ChooseRecipe(Pass):
    """The candidates, what is best, and the forward pass over held-out images."""

    candidates: list[str]
    """Names of the recipes, in the order of --checkpoints."""
    by: Literal["auroc", "fpr95", "aupr_in", "aupr_out", "detection_error", "accuracy", "aurc"]
    """What is best."""
    validation: Validation | None
    """The held-out ID train images; without any there is nothing to choose by."""
