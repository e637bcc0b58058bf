"""How fast a device is with the papers' networks: training step and evaluation, precisions, loops, share of the peak.

The peak of a precision is that of a large square product in the same run; a share is the operations of convolutions and
products (torch's counter) per second over that peak. Times are medians of a few stretches after a warm-up.
"""

from __future__ import annotations

import gc
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks import gpu_project as project
from benchmarks.gpu_rows import MEASURED, Late, Rows, within
from benchmarks.gpu_step import FastStep, compiled_pass, epoch_inputs, kernel_seconds, wait

EVALUATED = 256  # images of a forward pass on a GPU, as the features stage has it
STRETCH, STRETCHES = 0.25, 3  # seconds, how many
COMPILING = 75.0  # seconds at most
WORKERS = 8  # of the plain loop


@dataclass(frozen=True)
class Case:
    """A network with the batch of its paper's training."""

    name: str
    model: str
    options: dict[str, Any]
    batch: int
    side: int = 32
    classes: int = 10

    def build(self, device: torch.device, channels_last: bool = True) -> nn.Module:
        torch.manual_seed(0)
        network = project.model(self.model, self.classes, **self.options).to(device)
        return project.channels_last(network) if channels_last else network

    def images(self, count: int, device: torch.device, channels_last: bool = True) -> Tensor:
        generator = torch.Generator(device).manual_seed(1)
        x = torch.randn(count, 3, self.side, self.side, generator=generator, device=device)
        return x.to(memory_format=torch.channels_last) if channels_last else x


RESNET18 = Case("ResNet-18 CIFAR", "resnet_cifar", {}, 128)
CASES = (
    RESNET18,
    Case("ResNet-101 224", "torchvision_imagenet", {"architecture": "resnet101"}, 256, 224, 100),
    Case("WRN-40-2", "wide_resnet", {"dropout": 0.3}, 384),
    Case("ResNet-50 224", "torchvision_imagenet", {"architecture": "resnet50"}, 256, 224, 1000),
)
SMALL = (
    Case("ResNet-18 CIFAR", "resnet_cifar", {"blocks": (1, 1, 1, 1), "width": 8}, 16, 16),
    Case("WRN-40-2", "wide_resnet", {"depth": 10, "widen": 1, "width": 8}, 16, 16),
)
MODES = (("bfloat16", True), ("TF32", True), ("float32", True), ("float32", False), ("bfloat16", False))


class Speeds:
    """What the rows share: the rows, the device, the measured peaks."""

    def __init__(self, rows: Rows, device: torch.device, small: bool):
        self.rows, self.device, self.small = rows, device, small
        self.peaks: dict[str, float] = {}
        self.operations: dict[str, tuple[float, float]] = {}
        self.took: dict[str, list[tuple[str, float]]] = {}  # precision and seconds of a network's rows

    def all(self) -> None:
        """Every row, the most valuable first."""
        rows, first = self.rows, SMALL[0] if self.small else RESNET18
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.deterministic = False
        rows.run("peaks", "square product and copy", self.measure_peaks, 5)
        self.table(first, MODES, 12)
        rows.run("table", f"{first.name}, CUDA graph", lambda: self.fast(first, False), 6)
        rows.run("loops", "the training loop", lambda: self.loop(first, "float32"), 8)
        rows.run("loops", "the training loop, bfloat16", lambda: self.loop(first, "bfloat16"), 8)
        rows.run("loops", "fast step, CUDA graph", lambda: self.fast_loop(first, False), 8)
        rows.run("loops", "plain: DataLoader, PIL, NCHW, float32", lambda: self.plain(first), 12)
        rest = SMALL[1:] if self.small else CASES[1:]
        for case in rest:
            self.table(case, MODES[:1])
        rows.run("table", f"{first.name}, CUDA graph, compiled", lambda: self.fast(first, True), 30)
        compiling = self.rows.rows[-1]["seconds"]
        self.papers()
        for case in rest:
            self.table(case, MODES[1:3])
        for case in rest:
            rows.run("table", f"{case.name}, bfloat16, compiled", lambda case=case: self.compiled(case),
                     max(30, 1.5 * compiling))

    # --- the table

    def table(self, case: Case, modes: tuple[tuple[str, bool], ...], needs: float | None = None) -> None:
        for precision, last in modes:
            layout = "" if last else ", channels first"
            row = self.rows.run("table", f"{case.name}, {precision}{layout}",
                                lambda precision=precision, last=last: self.steps(case, precision, last),
                                self.expected(case, precision) if needs is None else needs)
            if row["status"] == MEASURED:
                self.took.setdefault(case.name, []).append((precision, row["seconds"]))

    def expected(self, case: Case, precision: str) -> float:
        """Seconds that a row may take: by the peaks from the network's rows in other precisions, since the search for
        the fastest convolutions grows with them; for its first row, one and a half times the dearest row so far."""
        peak, took = self.peaks.get(precision), self.took.get(case.name)
        if not peak or not took:
            return max(8.0, 1.5 * self.rows.dearest("table"))
        return max(8.0, min(seconds * max(1.0, self.peaks[other] / peak) for other, seconds in took))

    def measure_peaks(self) -> dict[str, Any]:
        side = 256 if self.small else 8192
        found = {}
        for precision in ("bfloat16", "TF32", "float32"):
            kind = torch.bfloat16 if precision == "bfloat16" else torch.float32
            with tf32(precision == "TF32"):
                a, b = (torch.randn(side, side, device=self.device, dtype=kind) for _ in range(2))
                self.peaks[precision] = 2 * side**3 / self.timed(lambda a=a, b=b: a @ b)
            found[f"{precision}, TFLOP/s"] = self.peaks[precision] / 1e12
        source = torch.rand(2**20 if self.small else 2**29, device=self.device)
        target = torch.empty_like(source)
        found["copy, read and written, GB/s"] = 8 * len(source) / self.timed(lambda: target.copy_(source)) / 1e9
        return found | {"side": side}

    def timed(self, work: Callable[[], Any]) -> float:
        """Seconds of ``work``: the median of stretches."""
        for _ in range(1 if self.small else 3):
            work()
        wait(self.device)
        started = time.perf_counter()
        work()
        wait(self.device)
        count = 1 if self.small else max(1, int(STRETCH / max(time.perf_counter() - started, 1e-5)))
        times = []
        for _ in range(STRETCHES):
            wait(self.device)
            started = time.perf_counter()
            for _ in range(count):
                work()
            wait(self.device)
            times.append((time.perf_counter() - started) / count)
        return statistics.median(times)

    def counted(self, case: Case) -> tuple[float, float]:
        """Operations of a training step and of a forward pass, for one image."""
        if case.name not in self.operations:
            from torch.utils.flop_counter import FlopCounterMode

            network, x = case.build(self.device), case.images(4, self.device)
            with FlopCounterMode(display=False) as whole:
                network(x).sum().backward()
            with FlopCounterMode(display=False) as forward, torch.no_grad():
                network(x)
            self.operations[case.name] = whole.get_total_flops() / 4, forward.get_total_flops() / 4
        return self.operations[case.name]

    def row(self, case: Case, precision: str, training: float, evaluation: float | None) -> dict[str, Any]:
        """A line of the table from seconds of a step and of a forward pass."""
        step, forward = self.counted(case)
        peak = self.peaks.get(precision)
        found: dict[str, Any] = {"batch": case.batch, "training, images/s": case.batch / training,
                                 "training, share of peak": peak and step * case.batch / training / peak}
        if evaluation is not None:
            found |= {"evaluation, images/s": self.evaluated(case) / evaluation,
                      "evaluation, share of peak": peak and forward * self.evaluated(case) / evaluation / peak}
        if self.device.type == "cuda":
            found["peak memory, GB"] = torch.cuda.max_memory_allocated() / 1e9
        return found

    def evaluated(self, case: Case) -> int:
        return min(EVALUATED, 16) if self.small else EVALUATED

    def forget(self) -> None:
        """Free what the row before held: memory, and a loader's threads."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def steps(self, case: Case, precision: str, channels_last: bool, compiled: bool = False) -> dict[str, Any]:
        """Steps and forward passes of random images, launched one by one."""
        self.forget()
        network = case.build(self.device, channels_last)
        if precision == "bfloat16":
            project.in_bfloat16(network)
        run = compiled_pass(network) if compiled else network
        labels = torch.arange(case.batch, device=self.device) % case.classes
        optimiser = torch.optim.SGD(network.parameters(), lr=1e-3, fused=self.device.type == "cuda", **project.SGD)
        x = case.images(case.batch, self.device, channels_last)

        def train() -> None:
            loss = functional.cross_entropy(run(x), labels)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()

        with tf32(precision == "TF32"):
            network.train()
            before = time.perf_counter()
            if compiled:
                with within(min(COMPILING, self.rows.left() - 5), "compiling"):
                    train()
                    wait(self.device)
            took = time.perf_counter() - before
            training = self.timed(train)
            network.eval()
            evaluation = None
            if not compiled:
                network.fold_batchnorms()
                network.requires_grad_(False)
                many = case.images(self.evaluated(case), self.device, channels_last)
                with torch.inference_mode():
                    evaluation = self.timed(lambda: network(many))
        return self.row(case, precision, training, evaluation) | ({"compiling, s": took} if compiled else {})

    def compiled(self, case: Case) -> dict[str, Any]:
        return self.steps(case, "bfloat16", True, compiled=True)

    def recorded(self, case: Case, compiled: bool) -> tuple[FastStep, float]:
        """The fast step, and how long it took to be ready."""
        self.forget()
        before = time.perf_counter()
        fast = FastStep(case.build(self.device), case.batch, project.SGD, case.side, compiled=compiled)
        fast.record(min(COMPILING, self.rows.left() - 5))
        return fast, time.perf_counter() - before

    def fast(self, case: Case, compiled: bool) -> dict[str, Any]:
        fast, took = self.recorded(case, compiled)
        x = case.images(case.batch, self.device).to(fast.dtype)
        labels, rate = torch.arange(case.batch, device=self.device) % case.classes, torch.tensor(1e-3).to(self.device)
        found = self.row(case, "bfloat16", self.timed(lambda: fast.step(x, labels, rate)), None)
        return found | {"ready after, s": took, "recorded": fast.graph is not None}

    # --- loops

    def data(self, case: Case, count: int) -> Any:
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randint(0, 256, (count, case.side, case.side, 3), dtype=torch.uint8, generator=generator)
        return project.Images(pixels.to(self.device), (torch.arange(count) % case.classes).to(self.device))

    def recipe(self, case: Case) -> project.Recipe:
        return project.recipe(100, case.batch, 0.01)

    def looped(self, case: Case, work: Callable[[int], Any], steps: int) -> dict[str, Any]:
        """Images/s of so many steps, and the share of that time in which a GPU's kernels ran."""
        work(max(2, steps // 4))
        wait(self.device)
        started = time.perf_counter()
        work(steps)
        wait(self.device)
        seconds = (time.perf_counter() - started) / steps
        found = {"batch": case.batch, "images/s": case.batch / seconds, "steps": steps}
        if self.device.type == "cuda":
            try:
                found["GPU busy"] = kernel_seconds(lambda: work(20)) / 20 / seconds
            except Late:
                raise
            except Exception as error:
                found["note"] = f"busy share not measured: {type(error).__name__}: {str(error)[:120]}"
            found["peak memory, GB"] = torch.cuda.max_memory_allocated() / 1e9
        return found

    def loop(self, case: Case, precision: str = "float32", fused: bool = True, compiling: project.How = "no",
             ) -> dict[str, Any]:
        """The project's loop as the train stage runs it on a store in memory: order, augmentation, step; a CPU traces
        what a GPU compiles."""
        self.forget()
        network = case.build(self.device)
        if precision == "bfloat16":
            project.in_bfloat16(network)
        project.compiled(network, compiling, self.device,
                         backend="inductor" if self.device.type == "cuda" else "eager")
        data = self.data(case, 50 if self.small else 50_000)
        training = project.Training(network, project.method("cross_entropy"), data, self.recipe(case), 0, fused=fused)
        network.train()

        def endless() -> Iterator[Any]:
            for epoch in itertools.count():
                yield from project.batches(data, training.recipe, 0, epoch, training.rows)

        source = endless()

        def work(steps: int) -> None:
            for batch in itertools.islice(source, steps):
                training._step(batch)

        return self.looped(case, work, 2 if self.small else 150)

    def fast_loop(self, case: Case, compiled: bool) -> dict[str, Any]:
        """The fast step over whole epochs, their augmentation included."""
        fast, _ = self.recorded(case, compiled)
        data, recipe, epoch = self.data(case, 50 if self.small else 50_000), self.recipe(case), itertools.count()
        per_epoch, rate = len(data.labels) // case.batch, torch.tensor(1e-3).to(self.device)

        def endless() -> Iterator[tuple[Tensor, Tensor]]:
            for number in epoch:
                inputs, labels = epoch_inputs(data.pixels, data.labels, recipe, 0, number, fast.dtype)
                parts = inputs.split(case.batch)[:per_epoch], labels.split(case.batch)[:per_epoch]
                yield from zip(*parts, strict=True)

        source = endless()

        def work(steps: int) -> None:
            for images, labels in itertools.islice(source, steps):
                fast.step(images, labels, rate)

        return self.looped(case, work, 2 if self.small else 2 * per_epoch)

    def plain(self, case: Case) -> dict[str, Any]:
        """What a researcher writes first: PIL images, torchvision's transforms, processes that load, .item()."""
        from torch.utils.data import DataLoader

        from benchmarks.papers import Paper, Pictures

        self.forget()
        data, network = self.data(case, 64 if self.small else 20_000), case.build(self.device, channels_last=False)
        pictures = Pictures(data.pixels.cpu(), data.labels.cpu(), Paper("plain", "resnet18", "cross_entropy",
                                                                       stored=case.side, side=case.side))
        workers = 0 if self.small else WORKERS
        loader = DataLoader(pictures, case.batch, shuffle=True, drop_last=True, num_workers=workers,
                            pin_memory=self.device.type == "cuda", persistent_workers=bool(workers))
        optimiser = torch.optim.SGD(network.parameters(), lr=1e-3, **project.SGD)

        def endless() -> Iterator[Any]:
            while True:
                yield from loader

        source = endless()

        def work(steps: int) -> None:
            for views, labels, _, _ in itertools.islice(source, steps):
                loss = functional.cross_entropy(network(views[0].to(self.device)), labels.to(self.device))
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                loss.item()

        return self.looped(case, work, 2 if self.small else 120) | {"loading processes": workers}

    # --- the papers' steps

    def papers(self) -> None:
        """Each paper's step in our loop beside a plain loop without loading processes (benchmarks/papers.py)."""
        try:
            from benchmarks.papers import PAPERS, Ours, Plain, tiny
        except ModuleNotFoundError as error:
            self.rows.run("papers' steps", "all", lambda error=error: raised(error), 0)
            return
        from benchmarks.networks import FULL
        from benchmarks.networks import SMALL as SMALL_NETWORKS

        for paper in PAPERS[:1] if self.small else PAPERS:
            def measured(paper: Any = paper) -> dict[str, Any]:
                self.forget()
                chosen, networks = (tiny(paper), SMALL_NETWORKS) if self.small else (paper, FULL)
                found = {"images": chosen.images}
                for precision in ("bfloat16", "float32"):
                    ours = Ours(chosen, self.device, networks, precision=precision)
                    found[f"{precision}, images/s"] = chosen.images / self.timed(ours.run)
                plain = Plain(chosen, self.device, networks)
                plain.run()
                wait(self.device)
                started = time.perf_counter()
                for _ in range(3):
                    plain.run()
                wait(self.device)
                return found | {"plain, images/s": 3 * chosen.images / (time.perf_counter() - started)}

            self.rows.run("papers' steps", paper.name, measured, max(20, 1.3 * self.rows.dearest("papers' steps")))


def raised(error: Exception) -> dict[str, Any]:
    raise error


@contextmanager
def tf32(on: bool) -> Iterator[None]:
    """Round float32 products to TF32 or not. torch refuses a mixture of its two interfaces to this, and the project's
    own (training/device.py) is ``allow_tf32``."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = on
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
