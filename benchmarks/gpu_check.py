"""Does a GPU compute what the CPU computes, and how fast? In a few minutes, without Snakemake, uv or a configuration.

    python -m benchmarks.gpu_check --minutes 4 [--out FOLDER]
    python -m benchmarks.gpu_check --device cpu --small          # the same code path without a GPU
    python -m benchmarks.gpu_check --only keys                   # what each key that speeds a training up does here

Needs Python 3.11 to 3.13, torch 2.11 or newer, numpy, h5py, Pillow, pydantic 2 (which brings annotated-types) and
array-api-compat; neither Snakemake nor lmdb. What else a row needs (torchvision, timm, scipy, open_clip) is imported
when it is run, and the row says what is not there. Rows come most valuable first, each is written to
``gpu_check.json`` and ``gpu_check.md`` at once, and what no time is left for is named. Exit status 1: a check failed or
could not be made.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before CUDA starts: sums in a fixed order where asked

import torch

from benchmarks import gpu_checks, gpu_keys, gpu_project, gpu_speed
from benchmarks.gpu_rows import ERROR, FAILED, Rows

OUT = Path(__file__).resolve().parent.parent / "results" / "benchmarks"
PACKAGES = ("torch", "triton", "numpy", "h5py", "torchvision", "timm", "scipy", "pillow", "open-clip-torch", "pydantic",
            "lmdb", "snakemake")


def about(device: torch.device, threads: int) -> dict[str, Any]:
    """The machine, its card and what is installed."""
    found: dict[str, Any] = {"python": platform.python_version(), "processor": processor(), "threads": threads}
    absent = []
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            absent.append(package)
    found["not installed"] = " ".join(absent) or "none"
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {"card": properties.name, "card's memory, GB": round(properties.total_memory / 1e9, 1),
                  "multiprocessors": properties.multi_processor_count, "CUDA": torch.version.cuda,
                  "cuDNN": torch.backends.cudnn.version(), "driver": driver()}
    else:
        found["card"] = "none, CPU"
    return found


def processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [text.split(":")[1].strip() for text in lines if text.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"


def driver() -> str:
    """Version of the driver, as nvidia-smi has it."""
    try:
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(asked, capture_output=True, text=True, timeout=20).stdout.strip().splitlines()[0]
    except (OSError, subprocess.SubprocessError, IndexError) as error:
        return f"not known ({type(error).__name__})"


def checks(rows: Rows, device: torch.device, small: bool) -> None:
    """What must hold, with algorithms of a fixed choice."""
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
    gpu_checks.all_checks(rows, device, small)


def command(name: str, doc: str, minutes: float, small: str) -> argparse.ArgumentParser:
    """The options that the GPU's benchmarks share.

    Args:
        minutes: in which all is to be done, where the user says nothing.
        small: what ``--small`` means.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=doc.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=minutes)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help=small)
    parser.add_argument("--threads", type=int, default=min(16, os.cpu_count() or 1), help="of the CPU")
    parser.add_argument("--out", type=Path, default=OUT)
    return parser


def device_of(args: argparse.Namespace) -> torch.device:
    """The device that was asked for; ends the command with status 2 where there is none."""
    if args.device == "cuda" and not torch.cuda.is_available():
        print(f"no GPU: torch {torch.__version__} (CUDA build {torch.version.cuda}) finds none; check the driver, or "
              "give --device cpu --small to see the same code run", file=sys.stderr)
        raise SystemExit(2)
    return gpu_project.devices.pick(args.device, args.threads)


def main(argv: list[str] | None = None) -> int:
    parser = command("gpu_check", __doc__, 4.0, "tiny networks and sets: a test of the command")
    parser.add_argument("--only", choices=("checks", "speeds", "keys"), help="leave out the others; keys are the last "
                        "rows of the speeds")
    args = parser.parse_args(argv)
    device = device_of(args)
    rows = Rows("gpu_check", args.out, about(device, args.threads), args.minutes)
    if args.only in (None, "checks"):
        checks(rows, device, args.small)
    if args.only != "checks":
        speeds = gpu_speed.Speeds(rows, device, args.small)
        if args.only != "keys":
            speeds.all()
        gpu_keys.all_keys(speeds, gpu_speed.SMALL[0] if args.small else gpu_speed.RESNET18)
    print(f"{len(rows.rows)} rows, {rows.count(FAILED)} failed, {rows.count(ERROR)} could not be made; "
          f"{rows.out / rows.name}.md")
    return int(rows.count(FAILED, ERROR) > 0)


if __name__ == "__main__":
    raise SystemExit(main())
