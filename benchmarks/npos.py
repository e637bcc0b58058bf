"""What NPOS's synthesis costs: one call at CIFAR-100's size, and a training step with it against one without.

    python -m benchmarks.npos [--part call|step] [--device cpu|cuda] [--threads 2] [--repeats 5]

``call``: 100 classes, queues of 1,000 features of 512, 200 boundary features, 2 of them drawn, 2 x 600 candidates for
each class, K = 300. Beside it one faiss flat index for each class, as the release does it, in the same run and turn by
turn (`uv run --with faiss-cpu python -m benchmarks.npos`; where faiss is missing that side is left out), and the plain
batched computation without the two savings (:mod:`workflow_scripts.methods.synthesis`). Target: 3 times as fast as
faiss. The peak of memory is what the process grows by in its first call, above the queues and the kept products; it is
bounded by ``synthesis.BLOCK_MB``.

``step``: the default run's network and sizes, two views of 64 images; with synthesis against without outliers. Target:
at most 2 (CPU), 1.3 (GPU).
"""

from __future__ import annotations

import argparse
import resource
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional

from workflow_scripts.methods import npos, synthesis
from workflow_scripts.methods.base import Batch, EvalData, Sizes
from workflow_scripts.methods.recipe import Recipe
from workflow_scripts.models import resnet_cifar
from workflow_scripts.networks import devices
from workflow_scripts.networks.memory import keep_freed_memory
from workflow_scripts.training.layout import channels_last

CLASSES, LENGTH, WIDTH, BATCH = 100, 1000, 512, 512
RULE = synthesis.Synthesis(K=300, select=200, pick=2, sample_from=600, keep=200, sigma=0.1)
TARGET, STEP_TARGETS = 3.0, {"cpu": 2.0, "cuda": 1.3}


def features(count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Rectified features around class centres, and labels."""
    labels = torch.randint(0, CLASSES, (count,), generator=generator)
    centres = torch.randn(CLASSES, WIDTH, generator=torch.Generator().manual_seed(1))
    return (centres[labels] + torch.randn(count, WIDTH, generator=generator)).relu(), labels


def plainly(queues: synthesis.Queues, noise: torch.Tensor, places: torch.Tensor) -> None:
    """The same selection in blocks of classes, from normalised candidates, all products computed."""
    for at in range(0, CLASSES, 10):
        part = slice(at, at + 10)
        unit, norm = queues.unit[part], queues.norm[part]
        queued = 2 - 2 * (unit @ unit.transpose(1, 2)).kthvalue(LENGTH + 1 - RULE.K, dim=2).values
        centres = queued.topk(RULE.select, dim=1).indices.gather(1, places[part])
        which = torch.arange(len(centres), device=unit.device)[:, None]
        x = (unit[which, centres] * norm[which, centres][..., None])[:, :, None] + RULE.sigma * noise
        products = functional.normalize(x, dim=3).flatten(1, 2) @ unit.transpose(1, 2)
        far = 2 - 2 * products.kthvalue(LENGTH + 1 - RULE.K, dim=2).values
        far.view(len(centres), RULE.pick, -1).topk(RULE.keep, dim=2)


def by_faiss(faiss: object, queues: synthesis.Queues, noise: torch.Tensor, places: torch.Tensor) -> None:
    """One flat index for each class."""
    for c in range(CLASSES):
        rows = queues.unit[c] * queues.norm[c][:, None]
        unit = functional.normalize(rows, dim=1).numpy()
        index = faiss.IndexFlatL2(WIDTH)
        index.add(unit)
        far = torch.from_numpy(index.search(unit, RULE.K)[0][:, -1])
        centres = far.topk(RULE.select).indices[places[c]]
        x = (rows[centres][:, None] + RULE.sigma * noise).flatten(0, 1)
        far = torch.from_numpy(index.search(functional.normalize(x, dim=1).numpy(), RULE.K)[0][:, -1])
        far.view(RULE.pick, -1).topk(RULE.keep, dim=1)


def resident() -> float:
    """MB of the process now, where the system tells."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return float("nan")
    return pages * resource.getpagesize() / 2**20


def peak(work: Callable[[], object]) -> float:
    """MB that the process grows by while it works, at most: sampled every millisecond."""
    before, most, done = resident(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.001):
            most[0] = max(most[0], resident() - before)

    thread = threading.Thread(target=watch)
    thread.start()
    work()
    done.set()
    thread.join()
    return most[0]


def call(device: torch.device, repeats: int) -> None:
    generator = torch.Generator().manual_seed(0)
    queues = synthesis.Queues(CLASSES, LENGTH, WIDTH).to(device)
    labels = torch.arange(CLASSES).repeat(LENGTH)
    queues.push(*(x.to(device) for x in (features(len(labels), generator)[0], labels)))
    try:
        import faiss
    except ImportError as error:
        faiss = None
        print(f"  faiss is left out: {error}; try `uv run --with faiss-cpu python -m benchmarks.npos`")
    if faiss and device.type == "cpu":
        faiss.omp_set_num_threads(torch.get_num_threads())
    sides: dict[str, Callable] = {"ours": RULE, "plain, batched": plainly}
    if faiss and device.type == "cpu":
        sides["faiss, an index per class"] = lambda *given: by_faiss(faiss, *given)
    draws = RULE.draw(queues, generator)
    queues.refresh()
    grown = peak(lambda: RULE(queues, *draws))
    if device.type == "cpu":
        keep_freed_memory()  # as the train stage does; before, it would hide what a call takes
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        queues.push(*(x.to(device) for x in features(BATCH, generator)))  # a step's worth of changes
        for name, side in sides.items():
            draws = RULE.draw(queues, generator)
            started = time.perf_counter()
            side(queues, *draws)
            if device.type == "cuda":
                torch.cuda.synchronize()
            times[name].append(time.perf_counter() - started)
    medians = report(times)
    kept = sum(b.numel() * b.element_size() for b in queues.buffers()) / 2**20
    print(f"  queues and kept products {kept:.0f} MB; a call takes {grown:.0f} MB more (blocks of "
          f"{synthesis.BLOCK_MB} MB, several alive at once)")
    for name in list(sides)[1:]:
        ratio = medians[name] / medians["ours"]
        verdict = f"  target {TARGET}: {'reached' if ratio >= TARGET else 'not reached'}" if "faiss" in name else ""
        print(f"  {name} / ours: {ratio:.2f}{verdict}")


class Runner:
    """A method with a network, an optimiser and a batch of its own."""

    def __init__(self, options: npos.Options, device: torch.device):
        generator = torch.Generator().manual_seed(0)
        self.network = resnet_cifar.build(resnet_cifar.Options(blocks=(1, 1, 1, 1), width=16), 8)
        channels_last(self.network.to(device)).train()
        self.method = npos.build(options, ())
        self.method.check(Recipe.of(normalise="per_image", views=2, training={
            "epochs": 500, "lr": 0.1, "batch_size": 64, "schedule": {"name": "cosine"}}))
        self.method.setup(self.network, Sizes(0, 500, 10**6, 1152, device))
        self.method.to(device)
        images = torch.randn(2, 64, 3, 32, 32, generator=generator).to(device, memory_format=torch.contiguous_format)
        images = [x.to(memory_format=torch.channels_last) for x in images]
        self.labels = torch.arange(64, device=device) % 8
        self.images = images
        labels = torch.arange(8, device=device).repeat(200)
        self.method.begin(self.network, EvalData(labels, lambda: iter([(images[0], self.labels)]), lambda: iter(())))
        if options.weight:
            width = self.network.head.in_features
            self.method.queues.push(torch.rand(len(labels), width, generator=generator).to(device), labels)
        groups = self.method.parameter_groups(self.network)
        self.optimiser = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True)
        self.step = 0

    def seconds(self, steps: int) -> float:
        started = time.perf_counter()
        for _ in range(steps):
            batch = Batch(self.images[0], self.labels, self.labels, 0, 5, self.step, second=self.images[1])
            loss, _ = self.method.loss(self.network, batch)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            self.optimiser.step()
            self.step += 1
        if loss.is_cuda:
            torch.cuda.synchronize()
        return (time.perf_counter() - started) / steps


def step(device: torch.device, repeats: int) -> None:
    if device.type == "cpu":
        keep_freed_memory()
    torch.manual_seed(0)
    sizes = {"start": 3, "queue": 100, "K": 20, "select": 20, "pick": 2, "sample_from": 60, "keep": 20,
             "projection": 64, "hidden": 32}
    runners = {"with synthesis": Runner(npos.Options(**sizes), device),
               "without": Runner(npos.Options(**(sizes | {"weight": 0.0})), device)}
    times: dict[str, list[float]] = {name: [] for name in runners}
    for repeat in range(repeats + 1):
        for name, runner in runners.items():
            seconds = runner.seconds(5)
            times[name] += [seconds] if repeat else []
    medians = report(times)
    ratio, target = medians["with synthesis"] / medians["without"], STEP_TARGETS[device.type]
    print(f"  with / without: {ratio:.2f}  target {target}: {'reached' if ratio <= target else 'not reached'}")


def report(times: dict[str, list[float]]) -> dict[str, float]:
    """Print each side's median and range. -> medians."""
    for name, values in times.items():
        print(f"  {name:28s} {1000 * statistics.median(values):9.1f} ms  ({1000 * min(values):.1f} to "
              f"{1000 * max(values):.1f})")
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.npos", description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=["call", "step"])
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    device = devices.pick(args.device, args.threads)
    place = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {args.threads} thread(s)"
    for name, part in (("call", call), ("step", step)):
        if args.part in (None, name):
            print(f"{name} on {place}, torch {torch.__version__}; medians, n = {args.repeats}")
            part(device, args.repeats)


if __name__ == "__main__":
    main()
