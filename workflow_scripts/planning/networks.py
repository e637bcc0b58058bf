"""What networks cost (``config/costs.yaml``): counted operations, and what a machine is assumed to do in a second."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from workflow_scripts.config.base import Strict
from workflow_scripts.core.digest import ROOT
from workflow_scripts.core.errors import OODError
from workflow_scripts.core.plugins import explain
from workflow_scripts.core.yaml_files import read_yaml
from workflow_scripts.wiring import sections
from workflow_scripts.work.plan import Plan, Trained

TABLE = ROOT / "config" / "costs.yaml"
CLASSES = 10  # that parameters are counted with
NATIVE = 32
"""Side in pixels of images that are stored as they are: CIFAR, SVHN, Tiny Images."""


class Machine(Strict):
    """What is assumed of a machine; nothing of it is measured."""

    about: str
    """What kind of machine."""
    gflops: Annotated[float, Field(gt=0)]
    """1e9 floating-point operations a second that a training sustains."""
    step: Annotated[float, Field(ge=0)]
    """Seconds that a training step or a batch takes at least, however small the network."""
    start: Annotated[float, Field(ge=0)]
    """Seconds that a job takes to start."""
    batch_size: Annotated[int, Field(gt=0)]
    """Images of a forward pass where the configuration leaves that to the device."""


class Row(Strict):
    """An architecture as :mod:`workflow_scripts.planning.count` counts it."""

    model: str
    """A module of `workflow_scripts/models`."""
    options: dict[str, Any]
    """Its options; one that is left out may be anything."""
    side: int
    """Of its input in pixels."""
    gflops: float
    """1e9 operations of a forward pass of one image; a multiply-add is two."""
    parameters: int
    """With ten outputs."""
    features: int
    """Penultimate width."""
    tail: float | None = None
    """1e9 operations behind the frozen blocks, where there are any."""
    tokens: int | None = None
    """Values of the frozen blocks' output for one image."""

    def bytes(self, classes: int) -> int:
        """A checkpoint's size, float32."""
        return 4 * (self.parameters + (classes - CLASSES) * (self.features + 1))


class Costs(Strict):
    """The file."""

    backward: Annotated[float, Field(ge=0)]
    """What a backward pass costs, in forward passes."""
    machines: dict[Literal["gpu", "cpu"], Machine]
    """What is assumed of them."""
    images: dict[str, Annotated[int, Field(gt=0)]]
    """`{dataset}.{split}` -> images, where the table of datasets states none; `other`: all else."""
    networks: list[Row]
    """Counted."""

    def find(self, plan: Plan, run: Trained) -> Row | None:
        """The row of a network in the work; ``None`` where nobody counted it."""
        given, pixels = architecture(run), side(plan, run.id)
        return next((row for row in self.networks if (row.model, row.side) == (run.network.model, pixels)
                     and row.options.items() <= given.items()), None)


def load(path: Path = TABLE) -> Costs:
    """Read the table.

    Raises:
        OODError: it is not there or not in order; one line per problem.
    """
    try:
        return Costs.model_validate(read_yaml(path, "table of costs"))
    except ValidationError as error:
        raise OODError("\n".join(explain(error, path.name))) from None


def architecture(run: Trained) -> dict[str, Any]:
    """A network's options, all of them, as JSON has them."""
    return json.loads(sections.dumps(sections.options("models", run.network.model, run.network.options)))


def classes(plan: Plan, run: Trained) -> int:
    """Outputs of a network without a background's."""
    given = plan.datasets[run.id].classes
    return given if isinstance(given, int) else len(given)


def side(plan: Plan, dataset: str) -> int:
    """Side in pixels of a dataset's images: the last number of its geometry; as they are: :data:`NATIVE`."""
    numbers = re.findall(r"\d+", plan.datasets[dataset].geometry)
    return int(numbers[-1]) if numbers else NATIVE
