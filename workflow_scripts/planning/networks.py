"""What networks cost (``config/costs.yaml``): counted operations, and what a machine does in a second."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, PrivateAttr, ValidationError, model_validator

from workflow_scripts.config.base import Strict
from workflow_scripts.core.digest import ROOT
from workflow_scripts.core.errors import OODError, unknown
from workflow_scripts.core.plugins import explain
from workflow_scripts.core.yaml_files import read_yaml
from workflow_scripts.planning.machines import (
    Benchmark,
    BenchmarkRow,
    Found,
    Machine,
    Pattern,
    Precision,
    read_benchmarks,
)
from workflow_scripts.wiring import sections
from workflow_scripts.work.plan import Plan, Trained

TABLE = ROOT / "config" / "costs.yaml"
CLASSES = 10  # that parameters are counted with
NATIVE = 32
"""Side in pixels of images that are stored as they are: CIFAR, SVHN, Tiny Images."""


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
    kinds: dict[str, list[Pattern]] = {}
    """Networks that a rate stands for."""
    machines: dict[str, Machine]
    """By the name that `plan --on` takes."""
    benchmarks: list[str] = []
    """Benchmark files of our own, relative to the repository; they go before the rates of others."""
    benchmark_rows: list[BenchmarkRow] = []
    """What the rows of such files stand for."""
    images: dict[str, Annotated[int, Field(gt=0)]]
    """`{dataset}.{split}` -> images, where the table of datasets states none; `other`: all else."""
    networks: list[Row]
    """Counted."""
    _own: list[Benchmark] = PrivateAttr(default_factory=list)

    @model_validator(mode="after")
    def _known_kinds(self) -> Self:
        for name, machine in self.machines.items():
            for rate in machine.rates:
                if rate.kind not in self.kinds:
                    raise ValueError(str(unknown(f"machines.{name}.rates: kind", rate.kind, self.kinds)))
        return self

    def machine(self, name: str) -> Machine:
        """A machine by its name.

        Raises:
            OODError: there is none of that name.
        """
        if name not in self.machines:
            raise unknown("--on", name, self.machines)
        return self.machines[name]

    def measured(self, path: Path, shown: str) -> Costs:
        """The same with the rates of one more benchmark file, which go before those that are there."""
        more = self.model_copy()
        more._own = [*read_benchmarks(path, self.benchmark_rows, shown), *self._own]
        return more

    def rate(self, machine: Machine, row: Row, method: str | None, precision: Precision) -> Found:
        """What a machine does with a network: as our benchmark has it, else as others measured it, else assumed."""
        for one in self._benchmarked(row, method):
            if machine.card and machine.card in one.card and one.precision == precision:
                return Found(one.images_per_second * one.row.each * (1 + self.backward), "benchmark", one.source)
        for rate in machine.rates:
            fitting = any(one.fits(row.model, row.options, row.side) for one in self.kinds[rate.kind])
            if fitting and rate.precision == precision:
                return Found(rate.sustained(self.backward), "sourced", rate.source)
        return Found(machine.assumed.get(precision, machine.assumed["float32"]), "assumed", machine.because)

    def least_step(self, machine: Machine, row: Row, method: str | None, images: float) -> float:
        """Seconds that a step of so many images takes at least on a card: those of the workflow's own loop, whose
        launches no card makes shorter, in whichever precision it was fastest; where none was timed, the machine's."""
        if machine.card:
            timed = [one for one in self._benchmarked(row, method) if one.row.loop]
            same = [one.step for one in timed if one.row.method == timed[0].row.method and one.step_images <= images]
            if same:
                return min(same)
        return machine.step

    def _benchmarked(self, row: Row, method: str | None) -> list[Benchmark]:
        """Our rates of a network, those of this method first."""
        found = [one for one in self._own if one.row.network.fits(row.model, row.options, row.side)
                 and one.row.method in (None, method)]
        return sorted(found, key=lambda one: one.row.method is None)

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
        costs = Costs.model_validate(read_yaml(path, "table of costs"))
    except ValidationError as error:
        raise OODError("\n".join(explain(error, path.name))) from None
    for name in reversed(costs.benchmarks):
        costs = costs.measured(ROOT / name, name)
    return costs


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
