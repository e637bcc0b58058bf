"""The section of :mod:`workflow_scripts.stages.train_start`."""

from __future__ import annotations

from workflow_scripts.core.section import Section
from workflow_scripts.methods.recipe import MethodRecipe
from workflow_scripts.networks.architecture import Network


class TrainStart(Section):
    """The first epochs of trainings that share them, as one of them."""

    network: Network
    """Architecture."""
    recipe: MethodRecipe
    """How it is trained; options that do not count yet have values that stand for all others."""
    released: list[str]
    """Defects of the released code to reproduce that count already."""
    epochs: int
    """How many they share."""
