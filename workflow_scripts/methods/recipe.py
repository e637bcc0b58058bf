"""How a network is trained, as the loop and the methods read it: what changes its numbers, and nothing else."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from workflow_scripts.core.section import Section, options_of
from workflow_scripts.data.images.changes import Normalise, Step


class Warmup(Section):
    """A learning rate that first rises."""

    epochs: int
    """Epochs until the schedule takes over."""
    start: float
    """Learning rate of the first step as a fraction of lr."""


class Schedule(Section):
    """Learning rate over the epochs."""

    name: Literal["constant", "cosine", "cosine_epochs", "multistep", "bit"]
    """Rule, see :func:`workflow_scripts.training.schedule.learning_rate`."""
    milestones: list[int] = []
    """Epochs after which lr is multiplied by gamma (multistep)."""
    gamma: float = 0.1
    """Factor of a milestone (multistep)."""
    floor: float = 0.0
    """Last learning rate as a fraction of lr (cosine)."""
    warmup: Warmup | None = None
    """Rise linearly at first; null: no."""
    steps: list[int] = []
    """bit: last step of the rise, milestones, last step of all; none: by the number of train images."""


class Optimisation(Section):
    """Descent over shuffled ID images."""

    epochs: int | None
    """Passes over the ID train images; null with schedule bit, which counts in steps."""
    batch_size: int
    """ID images per step."""
    lr: float
    """Learning rate at the start."""
    schedule: Schedule
    """How the learning rate falls."""
    optimiser: Literal["sgd", "adam"] = "sgd"
    """adam: with PyTorch's default moments; momentum and nesterov are not read."""
    momentum: float = 0.9
    """SGD momentum."""
    nesterov: bool = False
    """Nesterov momentum."""
    weight_decay: float = 0.0
    """L2 penalty on all parameters."""
    drop_last: bool = False
    """Drop the last, smaller batch of an epoch."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of what is before the penultimate features."""


class Validation(Section):
    """ID train images that are held out."""

    count: int
    """How many."""
    seed: int = 0
    """Of their draw, where there is no list."""
    list: str | None = None
    """File of image numbers, one in a line, counted from 0, relative to the repository."""
    sha256: str | None = None
    """Of that file: another list is another training."""


class OutlierBatches(Section):
    """How the outliers come beside the ID images."""

    batch_size: int = 256
    """Outlier images per step."""
    order: Literal["shuffled", "cycle", "block"] = "shuffled"
    """cycle: pass after pass, across epochs; block: contiguous images from a random place in each epoch."""


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
    training: Optimisation
    """Optimisation."""
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
    """A module of `workflow_scripts/methods`."""
    options: Annotated[Any, options_of("methods", "method", "options")] = Field({}, validate_default=True)
    """Its options."""
