"""The five papers' training steps on a GPU in one go: images/s, share of the roofline, peak memory, a plain loop.

    python -m benchmarks.gpu [--device cuda] [--repeats 20] [--out gpu.md]      # under 8 minutes
    python -m benchmarks.gpu --device cpu --small                               # the same code path without a GPU

A step and the plain loop are those of benchmarks/papers.py at the papers' batch sizes. The roofline is that of eager
execution, operator by operator, from the device's measured peaks (benchmarks/roofline.py); a step that joins operators
could exceed it. The precision class is printed: cuDNN may round convolutions' inputs to TF32. What has no time left is
left out, and the table says so.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch

from benchmarks import common, roofline
from benchmarks.common import Figure, Report
from benchmarks.networks import FULL, SMALL
from benchmarks.papers import PAPERS, Ours, Paper, Plain, tiny
from benchmarks.training import TARGETS, precision_class
from workflow_scripts.networks import devices

MINUTES = 8.0
HEADER = ("paper", "images a step", "images/s", "plain, images/s", "times plain", "share of roofline",
          "peak memory, GB")


def row(paper: Paper, device: torch.device, limits: roofline.Peaks, repeats: int, small: bool, report: Report,
        precision: str) -> list[str]:
    """One line of the table."""
    networks = SMALL if small else FULL
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    ours = Ours(paper, device, networks, precision=precision)
    for _ in range(3):  # the first steps choose kernels
        ours.run()
    seconds = common.turns({"ours": ours.run}, repeats, wait=lambda: roofline.synchronise(device))["ours"]
    memory = torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else None
    with roofline.Counted(limits) as counted:
        ours.run()
    step = statistics.median(seconds)
    plain = Plain(paper, device, networks)
    slow = statistics.median(common.turns({"plain": plain.run}, max(1, repeats // 4), wait=lambda: roofline.synchronise(
        device))["plain"])
    speed, share = paper.images / step, counted.least / step
    report.add(Figure(f"{paper.name}: times plain", slow / step, "", TARGETS[device.type], n=repeats,
                      more={"images/s": speed, "share of the roofline": share, "peak GB": memory,
                            "operations": counted.operations, "bytes": counted.bytes}))
    return [paper.name, str(paper.images), f"{speed:,.0f}", f"{paper.images / slow:,.0f}", f"{slow / step:.2f}",
            f"{100 * share:.0f} %", "" if memory is None else f"{memory:.2f}"]


def table(rows: list[list[str]]) -> str:
    """Markdown."""
    lines = [HEADER, ["---"] + ["--:"] * (len(HEADER) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=devices.NAMES, default="cuda")
    parser.add_argument("--tf32", action="store_true", help=devices.TF32)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32", help="training.precision")
    parser.add_argument("--small", action="store_true", help="tiny networks and batches")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=common.OUT / "gpu.md")
    args = parser.parse_args()
    began = time.perf_counter()
    device = devices.pick(args.device, args.threads, args.tf32)
    report = Report("gpu", "torch")
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    limits = roofline.peaks(device, args.small)
    about = (f"{name}, torch {torch.__version__}, {precision_class()}, training.precision {args.precision}; measured "
             f"peaks {limits.operations / 1e12:.2f} TFLOP/s, {limits.bandwidth / 1e9:.0f} GB/s; medians, n = "
             f"{args.repeats}")
    print(about, flush=True)
    rows = []
    for paper in PAPERS:
        if time.perf_counter() - began > 60 * MINUTES * 0.8:
            rows.append([paper.name, "left out: no time left", *[""] * (len(HEADER) - 2)])
            continue
        rows.append(row(tiny(paper) if args.small else paper, device, limits, args.repeats, args.small, report,
                        args.precision))
    text = f"{about}\n\n{table(rows)}"
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(text, encoding="utf-8")
    print(text)
    minutes = (time.perf_counter() - began) / 60
    report.add(Figure("minutes of the whole", minutes, "min", MINUTES, True))
    report.write(args.out.parent)


if __name__ == "__main__":
    main()
