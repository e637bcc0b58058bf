"""What learning weights of a background costs, beside fine-tuning against it.

    python -m benchmarks.resample [--network small|wrn40] [--device cpu|cuda] [--threads 2] [--repeats 5]
                                  [--sizes 50000 1281167 79302017]

Per number N of background images: the time of a whole weight-learning step over that of a plain fine-tuning step on the
same batch (128 ID and 128 background images, medians over interleaved repeats; target: at most 1.15 at 50 thousand and
1.28 million), how often a step goes through theta in memory (target: at most 10 times; its blocks stay in cache
meanwhile), the time of the update alone, beside that of adding 1 to a vector of length N, the time to draw an epoch's
images, and the memory that grows with N, in float32 vectors of length N (target: at most 4).
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable

import psutil
import torch

from workflow_scripts.methods import background, resample
from workflow_scripts.methods.base import Batch, Sizes
from workflow_scripts.models import resnet_cifar, wide_resnet_biased
from workflow_scripts.networks import devices
from workflow_scripts.networks.memory import keep_freed_memory
from workflow_scripts.training.layout import channels_last

STEP, PASSES, VECTORS = 1.15, 10, 4
WITH_STEP = 2_000_000  # largest N whose whole step is measured
NETWORKS = {
    "small": lambda: resnet_cifar.build(resnet_cifar.Options(blocks=(1, 1, 1, 1), width=16), 10),
    "wrn40": lambda: wide_resnet_biased.build(wide_resnet_biased.Options(), 10),
}


def timed(work: Callable[[], None], device: torch.device) -> float:
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


class Runner:
    """Steps of one method on a network of its own and one fixed batch."""

    def __init__(self, method: background.Background, count: int, network: str, device: torch.device):
        torch.manual_seed(0)
        self.method, self.network = method, channels_last(NETWORKS[network]().to(device))
        method.setup(self.network, Sizes(0, 1, 390, 50_000, device, count, 128))
        method.to(device)
        method.start_epoch(self.network, 0)
        images = torch.randn(256, 3, 32, 32, device=device).to(memory_format=torch.channels_last)
        index = torch.randint(0, count, (128,), device=device)
        self.batch = Batch(images[:128], torch.arange(128, device=device) % 10, index, 0, 0, 0, images[128:], index)
        self.optimiser = torch.optim.SGD(self.network.parameters(), lr=1e-3, momentum=0.9)

    def step(self) -> None:
        loss, _ = self.method.loss(self.network, self.batch)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        self.method.after_step(self.network, self.batch)


def peak(device: torch.device) -> int:
    """Most memory used so far, in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def used(device: torch.device) -> int:
    """Memory in use now, in bytes."""
    return torch.cuda.memory_allocated() if device.type == "cuda" else psutil.Process().memory_info().rss


def traversals(weights: resample.ImageWeights, index: torch.Tensor, distances: torch.Tensor) -> int:
    """How often one step goes through all blocks of theta."""
    calls, blocks = [], weights.blocks
    weights.blocks = lambda: calls.append(1) or blocks()
    weights.ascend(index, distances, 0.5)
    del weights.blocks
    return len(calls)


def verdict(value: float, target: float) -> str:
    return f"{value:.2f} ({'reached' if value <= target else 'not reached'}: at most {target})"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.resample", description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=list(NETWORKS), default="small")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=[50_000, 1_281_167, 79_302_017])
    args = parser.parse_args()
    device = devices.pick(args.device, args.threads)
    if device.type == "cpu":
        keep_freed_memory()
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {args.threads} threads"
    print(f"{args.network} on {name}, torch {torch.__version__}, {args.repeats} repeats")
    for count in sorted(args.sizes):
        measure(count, args, device)


def measure(count: int, args: argparse.Namespace, device: torch.device) -> None:
    """Print the figures at N = ``count``."""
    uniforms = torch.rand(49_920, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    before = used(device)
    weights = resample.ImageWeights(count, 100.0, 0.9).to(device)
    index, distances = torch.randint(0, count, (128,), device=device), torch.rand(128, device=device)
    drawing = timed(lambda: weights.draw(uniforms), device)
    weights.ascend(index, distances, 0.5)
    grown = (peak(device) - before) / (4 * count)
    vector = torch.zeros(count, device=device)
    updates, passes = [], []
    for _ in range(args.repeats):
        updates.append(timed(lambda: weights.ascend(index, distances, 0.5), device))
        passes.append(timed(lambda: vector.add_(1.0), device))
    update, one = statistics.median(updates), statistics.median(passes)
    line = f"N = {count:>10,}: goes through theta {verdict(traversals(weights, index, distances), PASSES)} times; "
    line += f"update {1000 * update:.2f} ms, adding 1 {1000 * one:.2f} ms; drawing 49,920 {1000 * drawing:.0f} ms"
    if count > 10_000_000:  # below, the process's own memory hides it
        line += f"; vectors of length N {verdict(grown, VECTORS)}"
    print(line, flush=True)
    if count > WITH_STEP:
        return
    plain = Runner(background.build(background.Options(), ()), count, args.network, device)
    learning = Runner(resample.build(resample.Options(snapshots=()), ()), count, args.network, device)
    plain.step(), learning.step()
    times = [(timed(plain.step, device), timed(learning.step, device)) for _ in range(args.repeats)]
    base, with_weights = (statistics.median(column) for column in zip(*times, strict=True))
    print(f"                step {1000 * with_weights:.0f} ms over {1000 * base:.0f} ms: "
          f"{verdict(with_weights / base, STEP)}", flush=True)


if __name__ == "__main__":
    main()
