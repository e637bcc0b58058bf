"""What jobs will cost: images, seconds and bytes, measured where the same job has run, else by stated assumptions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from workflow_scripts.planning import networks
from workflow_scripts.planning.dag import Job
from workflow_scripts.planning.machines import Found, Machine, Precision
from workflow_scripts.planning.measured import Measured
from workflow_scripts.planning.networks import Costs, Row
from workflow_scripts.training.schedule import bit_steps
from workflow_scripts.work import starts
from workflow_scripts.work.plan import Plan, Trained

Basis = Literal["measured", "other seeds", "benchmark", "sourced", "assumed", "unknown"]


@dataclass(frozen=True)
class Training:
    """The size of a training."""

    epochs: float
    steps: int
    images: int
    """Images that go forward and back, ID and outliers, each view."""


@dataclass
class Estimator:
    """Work, time and space of jobs.

    Args:
        plan: the work.
        costs: counted networks, and machines.
        measured: what has run in the results folder.
        machine: whose rates count where nothing has run.
        precision: of trainings and of passes that write features; left out: as the configuration has it.
        shared: whether epochs that several trainings share are trained once.
        launched: whether a step takes the least time that the training loop needs for it; else the rates count alone.
    """

    plan: Plan
    costs: Costs
    measured: Measured
    machine: str
    precision: Precision | None = None
    shared: bool = True
    launched: bool = True
    assumed_images: set[str] = field(default_factory=set)
    """Sets whose number of images is assumed, as far as they were asked for."""
    uncounted: set[str] = field(default_factory=set)
    """Networks that the table of costs lacks, as far as they were asked for."""

    rates: dict[tuple[str, str | None, Precision], Found] = field(default_factory=dict)
    """Rates that were used, by network, method and precision."""

    def __post_init__(self) -> None:
        self._rows: dict[tuple[str, str], Row | None] = {}
        self._seconds: dict[Job, tuple[float | None, Basis]] = {}

    def changed(self, **changes: Any) -> Estimator:
        """Another one for the same work with other arguments."""
        return replace(self, **changes, assumed_images=set(), uncounted=set(), rates={})

    def row(self, run: Trained) -> Row | None:
        """What the table of costs has of a network."""
        key = run.id, run.network.name
        if key not in self._rows:
            self._rows[key] = self.costs.find(self.plan, run)
        return self._rows[key]

    def images(self, dataset: str, split: str) -> int:
        """Images of a split, with the configuration's limit."""
        row = self.plan.datasets[dataset]
        options = row.options_of(split)
        counted = row.counts.get(split) or (row.sample and row.sample.n) or (
            options.get("count") if isinstance(options.get("count"), int) else None)
        if not counted:
            name = f"{dataset}.{split}"
            self.assumed_images.add(name)
            counted = self.costs.images.get(name, self.costs.images["other"])
        return min(counted, self.plan.config.limit.images or counted)

    def training(self, run: Trained) -> Training | None:
        """The size of a training; ``None`` for weights that are read from a file or chosen."""
        recipe, limit = run.recipe, self.plan.config.limit
        if recipe.training is None:
            return None
        given, count = recipe.training, self.images(recipe.images or run.id, "train")
        if recipe.validation:
            count -= recipe.validation.count
        count = max(count, 1)
        if given.schedule.name == "bit":
            steps = (given.schedule.steps or bit_steps(count))[-1]
            epochs = steps * given.batch_size / count
        else:
            each = max(1, count // given.batch_size if given.drop_last else -(-count // given.batch_size))
            steps, epochs = given.epochs * each, given.epochs
        if limit.steps and limit.steps < steps:
            epochs, steps = epochs * limit.steps / steps, limit.steps
        id_images = min(steps * given.batch_size, round(epochs * count)) * recipe.views
        outliers = steps * recipe.outliers.batch_size if run.outliers else 0
        return Training(epochs, steps, id_images + outliers)

    def trained(self, job: Job) -> Training | None:
        """The part of a training that a job does, since epochs that several share are trained once."""
        whole, shared = self.training(job.run), starts.starts(self.plan).get(job.run.key)
        if whole is None or shared is None:
            return whole
        if not self.shared:
            return Training(0, 0, 0) if job.kind == "starts" else whole
        first = shared.epochs / whole.epochs
        part = first if job.kind == "starts" else 1 - first
        return Training(whole.epochs * part, round(whole.steps * part), round(whole.images * part))

    def seconds(self, job: Job) -> tuple[float | None, Basis]:
        """Wall seconds of a job, and what that is based on; ``None`` where nothing is known."""
        if job not in self._seconds:
            self._seconds[job] = self._look(job)
        return self._seconds[job]

    def _look(self, job: Job) -> tuple[float | None, Basis]:
        for found, basis in ((self.measured.of(job), "measured"), (self.measured.alike(job), "other seeds")):
            if found is not None:
                return found, basis
        if not job.on_gpu:
            return None, "unknown"
        row = self.row(job.run)
        if row is None:
            self.uncounted.add(job.run.network.name)
            return None, "unknown"
        both, machine = 1 + self.costs.backward, self.costs.machine(self.machine)
        size = self.trained(job) if job.trains else None
        if size and not size.images:
            return 0.0, "assumed"
        if size:
            images, steps, least = size.images, size.steps, self._least(machine, row, job, size)
            each = (row.tail if job.run.recipe.frozen_blocks and row.tail else row.gflops) * both
        else:
            images = sum(self.images(*pair) for pair in self._passed(job))
            asked = self.plan.config.features.batch_size
            steps = -(-images // (asked if isinstance(asked, int) else machine.batch_size))
            least = machine.step if self.launched else 0
            each = row.gflops * (both if job.kind == "scores" else 1)
        rate = self._rate(machine, row, job, bool(size))
        return machine.start + max(steps * least, images * each / rate.gflops), rate.origin

    def _least(self, machine: Machine, row: Row, job: Job, size: Training) -> float:
        """Seconds of a training step at least."""
        if not self.launched:
            return 0
        return self.costs.least_step(machine, row, job.run.recipe.method, size.images / max(size.steps, 1))

    def _rate(self, machine: Machine, row: Row, job: Job, training: bool) -> Found:
        """What the machine does with the network of a job; kept, so that the plan can name its source."""
        method = job.run.recipe.method if training else None
        precision = self.precision_of(job)
        found = self.costs.rate(machine, row, method, precision)
        self.rates[f"{row.model} of {row.parameters / 1e6:.1f} million parameters", method, precision] = found
        return found

    def precision_of(self, job: Job) -> Precision:
        """Of a job that runs a network: its recipe's or that of the features. Scores never run in bfloat16."""
        config, recipe = self.plan.config, job.run.recipe
        single: Precision = "tf32" if config.tf32 or self.precision == "tf32" else "float32"
        if job.kind == "scores":
            return single
        given = self.precision
        if given is None:
            given = recipe.training.precision if job.trains and recipe.training else config.features.precision
        return "bfloat16" if given == "bfloat16" else single

    def _passed(self, job: Job) -> Iterable[tuple[str, str]]:
        """(dataset, split) whose images all go through a network in a job that trains none."""
        if job.kind == "panels":
            return ()  # a few images
        if job.trains:
            probe = job.run.recipe.checkpoint and job.run.recipe.checkpoint.probe
            return [pair for pair in job.sets if (probe if pair[1] == "train" else job.run.among)]
        return job.sets

    def bytes(self, job: Job) -> int | None:
        """Size of a job's outputs; ``None`` where nothing is known. Tables, figures and logs are small: 0."""
        run, row = job.run, self.row(job.run) if job.run else None
        outputs = networks.classes(self.plan, run) if run else 0
        match job.kind:
            case "archives":
                return self.plan.sources[job.name].size
            case "lmdb":
                sizes = [self.plan.sources[name].size for name in self.plan.archives(*job.sets[0])]
                return sum(sizes) if sizes and all(sizes) else None
            case "data":
                return self._store(*job.sets[0])
            case "models":
                return row.bytes(outputs) if row else None
            case "starts":  # with the optimiser's momentum; what a method gathers is not counted
                return 2 * row.bytes(outputs) if row else None
            case "features":
                return 4 * (row.features + outputs) * sum(self.images(*p) for p in job.sets) if row else None
            case "trunk":
                return 2 * row.tokens * self.images(*job.sets[0]) if row and row.tokens else None
            case "masks":  # compressed: at most
                return self.images(*job.sets[0]) * networks.side(self.plan, run.id) ** 2
            case "scores":
                return 8 * sum(self.images(*pair) for pair in self.plan.sets(run.id)[1:])
        return 0

    def _store(self, dataset: str, split: str) -> int:
        row, count = self.plan.datasets[dataset], self.images(dataset, split)
        if row.pixels == "decoded" and not self.plan.config.limit.images:
            return 24 * count
        side = networks.side(self.plan, dataset) if row.reader != "noise" else row.options_of(split).get(
            "size", networks.NATIVE)
        wide = 4 / 3 if row.geometry.startswith("short") else 1
        return round(count * side * side * 3 * wide * (4 if row.reader == "noise" else 1))


def there(job: Job, folder: Path) -> int | None:
    """Bytes of a job's outputs on the disk; ``None`` where one is not there."""
    try:
        return sum((folder / name).stat().st_size for name in job.outputs)
    except OSError:
        return None
