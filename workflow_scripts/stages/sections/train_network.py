"""The section of :mod:`workflow_scripts.stages.train_network`."""

from __future__ import annotations

from workflow_scripts.core.section import Section
from workflow_scripts.methods.recipe import MethodRecipe
from workflow_scripts.networks.architecture import Network
from workflow_scripts.stages.sections.train_start import TrainStart


class TrainNetwork(Section):
    """A network and how it is trained."""

    network: Network
    """Architecture."""
    recipe: MethodRecipe
    """How it is trained."""
    released: list[str]
    """Defects of the released code to reproduce."""
    steps: int | None
    """Stop after so many steps; null: all epochs."""
    start: TrainStart | None = None
    """The first epochs, which another job trains; null: none."""
