"""How a network is trained, as it is written in a configuration and read by stages: optimisation, held-out images,
batches of outliers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from workflow_scripts.core.section import Fraction, Strict


class Warmup(Strict):
    """A learning rate that first rises."""

    epochs: Annotated[int, Field(gt=0)]
    """Epochs until the schedule takes over."""
    start: Fraction
    """Learning rate of the first step as a fraction of lr."""


class Schedule(Strict):
    """Learning rate over the epochs."""

    name: Literal["constant", "cosine", "cosine_epochs", "multistep", "bit"]
    """`cosine` falls from lr to lr * floor over all steps, `cosine_epochs` once an epoch; `multistep` multiplies by
    gamma at each milestone; `bit` rises from 0, then falls to a tenth at each milestone, and its last step ends the
    training."""
    milestones: list[Annotated[int, Field(gt=0)]] = []
    """Epochs after which lr is multiplied by gamma (multistep)."""
    gamma: Annotated[float, Field(gt=0)] = 0.1
    """Factor of a milestone (multistep)."""
    floor: Fraction = 0.0
    """Last learning rate as a fraction of lr (cosine)."""
    warmup: Warmup | None = None
    """Rise linearly at first; left out: no."""
    steps: list[Annotated[int, Field(gt=0)]] = []
    """`bit`: last step of the rise, milestones, last step of all, in rising order; left out: BiT's rule by the number
    of train images."""

    @model_validator(mode="after")
    def _milestones(self) -> Schedule:
        if (self.name == "multistep") != bool(self.milestones):
            raise ValueError("milestones are given exactly when name is multistep")
        if self.steps and (self.name != "bit" or len(self.steps) < 2 or self.steps != sorted(set(self.steps))):
            raise ValueError("steps are given with name bit only, at least two, rising")
        return self


class Optimisation(Strict):
    """Optimisation of one network over shuffled ID images."""

    epochs: Annotated[int, Field(gt=0)] | None = None
    """Passes over the ID train images; left out exactly with schedule `bit`, which counts in steps."""
    batch_size: Annotated[int, Field(gt=0)]
    """ID images per step."""
    lr: Annotated[float, Field(gt=0)]
    """Learning rate at the start."""
    schedule: Schedule
    """How the learning rate falls."""
    optimiser: Literal["sgd", "adam"] = "sgd"
    """`adam` has the moments of PyTorch's default (0.9 and 0.999), and neither `momentum` nor `nesterov`."""
    momentum: Fraction = 0.9
    """SGD momentum."""
    nesterov: bool = False
    """Nesterov momentum."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """L2 penalty on all parameters."""
    drop_last: bool = False
    """Drop the last, smaller batch of an epoch."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """`bfloat16` computes all before the penultimate features in it; weights, head, loss and optimiser stay float32.
    Faster, and it changes numbers: docs/performance.md."""
    @model_validator(mode="after")
    def _length(self) -> Optimisation:
        if (self.epochs is None) != (self.schedule.name == "bit"):
            raise ValueError("epochs is required, but for schedule bit, where it is left out")
        return self


class Validation(Strict):
    """ID train images that are held out to choose the epoch."""

    count: Annotated[int, Field(gt=0)]
    """How many."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of their draw, where there is no list."""
    list: str | None = None
    """File of image numbers, one a line, counted from 0, relative to the repository."""


class OutlierBatches(Strict):
    """How outliers come beside the ID images."""

    batch_size: Annotated[int, Field(gt=0)] = 256
    """Outlier images per step."""
    order: Literal["shuffled", "cycle", "block"] = "shuffled"
    """`shuffled`: each epoch begins a pass over the set in a new random order; `cycle`: it continues the pass that the
    epoch before left, so that all images are met before one is met again (background data resampling); `block`: a
    contiguous run of images from a random place in each epoch (G-OE)."""
