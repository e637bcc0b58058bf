"""A training step of each paper's network and loss, beside a plain loop of the same network and loss.

    python -m benchmarks.training [--papers himplos npos ...] [--divide 1] [--device cpu] [--repeats 3] [--threads 2]

What each side is: benchmarks/papers.py. A turn is one step of each side, from the images to the update; medians of the
ratios of the turns. `--divide 4` takes quarters of the papers' batches. Targets: 1.3 on a CPU, 3 on a GPU, where the
precision class is printed; `--precision bfloat16` gives our side that key of a recipe's training. The loss of both
sides on one batch is compared first (dropout is left out of that).
"""

from __future__ import annotations

import argparse

import torch
from torch import nn

from benchmarks import common
from benchmarks.common import Figure, Report
from benchmarks.papers import PAPERS, Paper, Step, sides, tiny
from workflow_scripts.networks import devices

TARGETS, RELATIVE = {"cpu": 1.3, "cuda": 3.0}, {"float32": 1e-3, "bfloat16": 0.1}


def difference(both: dict[str, Step]) -> float:
    """Relative difference of the two sides' losses on the same batch, without dropout."""
    batch, losses = next(both["ours"].source), []
    for side in both.values():
        rates = {m: m.p for m in side.network.modules() if isinstance(m, nn.Dropout)}
        for module in rates:
            module.p = 0.0
        side.prepare()
        losses.append(float(side.loss(batch).detach()))
        for module, rate in rates.items():
            module.p = rate
    return abs(losses[0] - losses[1]) / abs(losses[0])


def measure(paper: Paper, report: Report, device: torch.device, repeats: int, small: bool = False,
            precision: str = "float32") -> float:
    """How many times faster a step is than a plain one, printed with its target (on a CPU that of float32)."""
    both = sides(paper, device, small, precision=precision)
    apart = difference(both)
    if not apart < RELATIVE[precision]:
        raise ValueError(f"{paper.name}: the losses of the two sides differ by {apart:.2g} of the loss")
    times = common.turns({name: step.run for name, step in both.items()}, repeats,
                         wait=torch.cuda.synchronize if device.type == "cuda" else lambda: None)
    ratio = common.ratio(times, "plain", "ours")
    report.add(Figure(f"{paper.name}, {paper.images} images a step, {precision}: times plain", ratio, "",
                      None if (device.type, precision) == ("cpu", "bfloat16") else TARGETS[device.type], n=repeats,
                      more={"images/s": paper.images / common.median(times, "ours")}))
    print(f"      {paper.images / common.median(times, 'ours'):.1f} images/s, plain "
          f"{paper.images / common.median(times, 'plain'):.1f}", flush=True)
    return ratio


def precision_class() -> str:
    """How a GPU multiplies float32 numbers here."""
    products = "TF32" if torch.backends.cuda.matmul.allow_tf32 else "float32"
    return f"convolutions {'TF32' if torch.backends.cudnn.allow_tf32 else 'float32'}, other products {products}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__.splitlines()[0])
    parser.add_argument("--papers", nargs="+", default=[paper.name.split(":")[0] for paper in PAPERS])
    parser.add_argument("--divide", type=int, default=1, help="divides the papers' batches")
    parser.add_argument("--small", action="store_true", help="tiny networks: a test of the benchmark")
    parser.add_argument("--device", choices=devices.NAMES, default="cpu")
    parser.add_argument("--tf32", action="store_true", help=devices.TF32)
    parser.add_argument("--precision", choices=list(RELATIVE), default="float32", help="of our side")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    device = devices.pick(args.device, args.threads, args.tf32)
    report = Report("training", "torch")
    if device.type == "cuda":
        print(f"  {torch.cuda.get_device_name()}, {precision_class()}")
    for paper in PAPERS:
        if paper.name.split(":")[0] in args.papers:
            measure(tiny(paper) if args.small else paper.divided(args.divide), report, device, args.repeats, args.small,
                    args.precision)
    report.write()


if __name__ == "__main__":
    main()
