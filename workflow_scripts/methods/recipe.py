"""How a network is trained, as the loop and the methods read it: what changes its numbers, and nothing else."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from workflow_scripts.core import optimisation
from workflow_scripts.core.changes import Normalise, Step
from workflow_scripts.core.section import Section, options_of


class Validation(optimisation.Validation, Section):
    """ID train images that are held out, and the content of their list."""

    sha256: str | None = None
    """Of the list's file: another list is another training."""


class OutlierBatches(optimisation.OutlierBatches, Section):
    """How outliers come beside the ID images; which ones is an input of its own."""


class Recipe(Section):
    """What a training reads of a recipe; parent, pseudo-masks, selection and stores are inputs of their own."""

    normalise: Normalise
    """Pixel values to network inputs: mean and std per channel, or per_image."""
    augment: list[Step] = []
    """Random changes to the train images, in order."""
    frozen_blocks: bool = False
    """Train on the output of the parent's frozen blocks."""
    views: int = 1
    """How many augmentations of each image a step sees."""
    training: optimisation.Optimisation
    """Optimisation."""
    resident: str | None = None
    """Geometry in which train images that no store holds are decoded once, onto the device; null: in each epoch."""
    outliers: OutlierBatches | None = None
    """Outliers beside the ID images; null: none."""
    masks: bool = False
    """Whether pseudo-masks are trained on."""
    validation: Validation | None = None
    """ID train images held out; null: none."""
    initialisation: Literal["fan_out"] | float | None = None
    """Normal start weights of the convolutions: fan_out, or their standard deviation; null: the network's own."""
    keep: Literal["last", "best"] = "last"
    """The epoch whose weights are kept: the last one, or the one of best validation accuracy."""


class MethodRecipe(Recipe):
    """A recipe and the method that trains by it."""

    method: str
    """A module of `workflow_scripts/methods`, or the path of a user's own file."""
    options: Annotated[Any, options_of("methods", "method", "options")] = Field({}, validate_default=True)
    """Its options."""
