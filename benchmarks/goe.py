"""What a G-OE step costs: 128 ID + 256 mixed + 256 outlier images and a filter pass over 256, against cross-entropy.

    python -m benchmarks.goe [--network small|wrn40-2] [--device cpu|cuda] [--threads 1] [--repeats 5]

The number is (time of a G-OE step / 640) / (time of a cross-entropy step / its images), medians over interleaved
repeats; a step is all of it: outliers, augmentation, mixing, filter, both passes and the update. Target: at most 1.35
in one run. A step without overhead has 1 + 256/640/3 = 1.13, as a forward pass is a third of a training pass.
Cross-entropy runs in batches of 640, the size of G-OE's pass, and as it is trained, in batches of 128, which on a CPU
fit its caches better.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator

import torch
from torch import nn

from workflow_scripts.methods import cross_entropy, goe
from workflow_scripts.methods.base import Batch, Method
from workflow_scripts.methods.recipe import Recipe
from workflow_scripts.models import resnet_cifar, wide_resnet
from workflow_scripts.networks import devices
from workflow_scripts.networks.memory import keep_freed_memory
from workflow_scripts.training.layout import channels_last
from workflow_scripts.training.loop import Images, batches
from workflow_scripts.training.outliers import Outliers

TARGET = 1.35
NETWORKS = {
    "small": lambda: resnet_cifar.build(resnet_cifar.Options(blocks=(1, 1, 1, 1), width=16), 10),
    "wrn40-2": lambda: wide_resnet.build(wide_resnet.Options(), 10),
}


def endless(data: Images, recipe: Recipe, outliers: Outliers | None) -> Iterator[Batch]:
    epoch = 0
    while True:
        yield from batches(data, recipe, 0, epoch, outliers=outliers)
        epoch += 1


class Runner:
    """Steps of one method on a network of its own."""

    def __init__(self, method: Method, network: nn.Module, data: Images, outliers: Outliers, size: int):
        recipe = Recipe.of(training={"epochs": 1, "batch_size": size, "lr": 0.01, "drop_last": True,
                                     "schedule": {"name": "constant"}},
                           augment=[{"horizontal_flip": 0.5}, {"random_crop": 4}],
                           normalise={"mean": [0.5] * 3, "std": [0.25] * 3})
        self.method, self.network = method, channels_last(network.to(data.pixels.device)).train()
        self.source = endless(data, recipe, outliers if method.outliers else None)
        self.optimiser = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)

    def seconds(self, steps: int) -> float:
        """Time of a step, mean of ``steps``."""
        started = time.perf_counter()
        for _ in range(steps):
            loss, _ = self.method.loss(self.network, next(self.source))
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            self.optimiser.step()
        if loss.is_cuda:
            torch.cuda.synchronize()
        return (time.perf_counter() - started) / steps


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.goe", description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=list(NETWORKS), default="small")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1, help="steps of a repeat (on a GPU take 50)")
    args = parser.parse_args()
    device = devices.pick(args.device, args.threads)
    if device.type == "cpu":
        keep_freed_memory()  # as the train stage does
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (4096, 32, 32, 3), dtype=torch.uint8).to(device)
    data = Images(pixels[:2048], torch.randint(0, 10, (2048,)).to(device))
    outliers = Outliers(pixels[2048:], 256, "block", 0, device, "random images")
    plain, filtered = cross_entropy.build(cross_entropy.Options(), ()), goe.build(goe.Options(filter="top", k=8), ())
    runs = {
        "G-OE, 640 images": (640, Runner(filtered, NETWORKS[args.network](), data, outliers, 128)),
        "cross-entropy, 640 images": (640, Runner(plain, NETWORKS[args.network](), data, outliers, 640)),
        "cross-entropy, 128 images": (128, Runner(plain, NETWORKS[args.network](), data, outliers, 128)),
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(args.repeats + 1):
        for name, (size, runner) in runs.items():
            # equal numbers of images in each turn; the first warms up
            seconds = runner.seconds(args.steps * 640 // size) / size
            times[name] += [seconds] if repeat else []
    medians = {name: statistics.median(values) for name, values in times.items()}
    where_on = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {args.threads} thread(s)"
    print(f"{args.network} on {where_on}, torch {torch.__version__}; median microseconds per image, n = {args.repeats}")
    for name, value in medians.items():
        print(f"  {name:26s} {1e6 * value:9.1f}")
    for name in list(runs)[1:]:
        ratio = medians["G-OE, 640 images"] / medians[name]
        print(f"  G-OE / {name}: {ratio:.3f}  target {TARGET}: {'reached' if ratio <= TARGET else 'not reached'}")


if __name__ == "__main__":
    main()
