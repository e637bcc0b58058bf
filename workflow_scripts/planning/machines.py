"""What machines do in a second (``config/costs.yaml``): rates with their sources, assumptions, our own benchmark files.

A rate holds for the kind of network and the precision it was measured with, and for nothing else. What was counted in
images is turned into operations: images/s x operations of a forward pass x (1 + backward).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from workflow_scripts.config.base import Strict
from workflow_scripts.core.errors import OODError

Precision = Literal["float32", "tf32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = ("float32", "tf32", "bfloat16")
Origin = Literal["benchmark", "sourced", "assumed"]
Positive = Annotated[float, Field(gt=0)]


class Pattern(Strict):
    """Networks."""

    model: str
    """A module of `workflow_scripts/models`."""
    options: dict[str, Any] = {}
    """Of its options, those that matter."""
    side: int
    """Of the input in pixels."""

    def fits(self, model: str, options: dict[str, Any], side: int) -> bool:
        """Whether a network is one of them."""
        return (model, side) == (self.model, self.side) and self.options.items() <= options.items()


class Rate(Strict):
    """What a machine reached in training with one kind of network in one precision."""

    kind: str
    """One of `kinds`."""
    precision: Precision
    gflops: Positive | None = None
    """1e9 operations a second; left out: by images."""
    images: Positive | None = None
    """A second."""
    each: Positive | None = None
    """1e9 operations of the forward pass of one of them."""
    source: Annotated[str, Field(min_length=10)]
    """Where it was read: repository, commit, file; and what was measured."""

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if (self.gflops is None) == (self.images is None) or (self.images is None) != (self.each is None):
            raise ValueError("either gflops, or images and each, expected")
        return self

    def sustained(self, backward: float) -> float:
        """1e9 operations a second."""
        return self.gflops or (self.images or 0) * (self.each or 0) * (1 + backward)


class Machine(Strict):
    """A machine."""

    about: str
    """What kind of machine."""
    card: str | None = None
    """A part of the name that CUDA gives it, by which a benchmark file is known as this machine's."""
    assumed: dict[Precision, Positive]
    """1e9 operations a second with networks that no rate is for; one that is left out is that of float32."""
    because: str = ""
    """Why that is assumed."""
    rates: list[Rate] = []
    """Measured by others."""
    step: Annotated[float, Field(ge=0)]
    """Seconds that a training step or a batch takes at least, however small the network."""
    start: Annotated[float, Field(ge=0)]
    """Seconds that a job takes to start."""
    batch_size: Annotated[int, Field(gt=0)]
    """Images of a forward pass where the configuration leaves that to the device."""

    @model_validator(mode="after")
    def _float32(self) -> Self:
        if "float32" not in self.assumed:
            raise ValueError("assumed: a number for float32 expected")
        return self

    def sustaining(self, gflops: float) -> Machine:
        """The same with one assumed number for every network and precision."""
        return self.model_copy(update={"assumed": {"float32": gflops}, "rates": [], "card": None, "because": ""})


class BenchmarkRow(Strict):
    """A row of the files that `benchmarks/gpu_check.py` writes, and the networks it stands for."""

    section: str
    name: str
    columns: dict[Precision, str]
    """Where the images a second of training stand."""
    network: Pattern
    each: Positive
    """1e9 operations of a forward pass of the network that was timed, which stands for others of its kind."""
    method: str | None = None
    """Of the training, where its own work is in the figure; left out: any."""
    loop: bool = False
    """Whether the workflow's own training loop ran, launches, images and update included; else a bare step."""


@dataclass(frozen=True)
class Benchmark:
    """A rate of our own."""

    card: str
    row: BenchmarkRow
    precision: Precision
    images_per_second: float
    step_images: int
    """Images of the step that was timed."""
    file: str

    @property
    def step(self) -> float:
        """Seconds of a step."""
        return self.step_images / self.images_per_second

    @property
    def source(self) -> str:
        """File and row."""
        return f"{self.file}: {self.row.section}, {self.row.name}"


@dataclass(frozen=True)
class Found:
    """A rate for a network."""

    gflops: float
    origin: Origin
    source: str


def read_benchmarks(path: Path, rows: list[BenchmarkRow], shown: str) -> list[Benchmark]:
    """Rates of a benchmark file; rows that it lacks, or that no time was left for, are passed over.

    Raises:
        OODError: no such file, or none that `benchmarks/gpu_check.py` writes.
    """
    if not path.is_file():
        raise OODError(f"{shown}: there is no such benchmark file; python -m benchmarks.gpu_check writes one")
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        card = given["about"].get("card")
        found = {(row["section"], row["name"]): row for row in given["rows"]}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise OODError(f"{shown}: a file that python -m benchmarks.gpu_check writes expected (JSON with about and "
                       "rows), found another") from None
    if not card:
        raise OODError(f"{shown}: about.card: the name of a GPU expected, found none; a run on a CPU has no rates")
    rates = []
    for row in rows:
        measured = found.get((row.section, row.name), {})
        for precision, column in row.columns.items():
            images = measured.get("images", measured.get("batch"))
            if images and measured.get(column):
                rates.append(Benchmark(card, row, precision, measured[column], images, shown))
    return rates
