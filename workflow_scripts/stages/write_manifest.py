"""Where a paper's numbers come from: configuration, code, packages, machine, inputs with checksums, cost per job.

    python -m workflow_scripts.stages.write_manifest --config JSON --stores a.h5 ... --checkpoints x.pt ... \
        --benchmarks results/small/benchmarks --out house.manifest.json

The manifest stands beside the table. It describes the machine that wrote it; jobs on other nodes of a cluster show in
their own benchmark rows.
"""

from __future__ import annotations

import argparse
import csv
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import h5py
import psutil

from workflow_scripts.core.digest import NUMERICAL, ROOT
from workflow_scripts.core.errors import OODError, stage
from workflow_scripts.core.files import atomic, sha256
from workflow_scripts.core.section import stage_parser
from workflow_scripts.stages.sections.write_manifest import WriteManifest


def arguments() -> argparse.ArgumentParser:
    parser = stage_parser(__spec__, __doc__, WriteManifest)
    parser.add_argument("--stores", nargs="*", default=[], help="stores whose raw sources are listed")
    parser.add_argument("--checkpoints", nargs="*", default=[], help="trained networks behind the table")
    parser.add_argument("--benchmarks", required=True, type=Path, help="folder of Snakemake's benchmark files")
    parser.add_argument("--out", required=True)
    return parser


@stage
def main(argv: list[str] | None = None) -> None:
    args = arguments().parse_args(argv)
    manifest = {
        **dict(args.config),
        "git": git_revision(),
        "packages": packages(),
        "hardware": hardware(),
        "inputs": inputs(args.stores, args.checkpoints),
        "stages": costs(args.benchmarks),
    }
    with atomic(args.out) as partial:
        partial.write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def git_revision() -> dict[str, Any]:
    """Revision of the checkout and whether files differ from it; nulls where this is no git checkout."""
    def git(*words: str) -> str | None:
        try:
            return subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True, check=True,
                                  timeout=20).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            return None

    revision, status = git("rev-parse", "HEAD"), git("status", "--porcelain")
    return {"revision": revision, "modified": None if status is None else bool(status)}


def packages() -> dict[str, str]:
    """Versions of Python, Snakemake and every package that computes numbers."""
    versions = {"python": platform.python_version()}
    for name in sorted({*NUMERICAL.values(), "h5py", "snakemake"}):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def hardware() -> dict[str, Any]:
    """Processor, usable cores, memory in GiB, GPUs by name, operating system."""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        named = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")]
        cpu = named[0].split(":", 1)[1].strip() if named else cpu
    gpus: list[str] = []
    if shutil.which("nvidia-smi"):
        asked = subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"],
                               capture_output=True, text=True, timeout=30, check=False)
        gpus = asked.stdout.strip().splitlines() if asked.returncode == 0 else []
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": cpu, "cores": cores, "memory_gib": round(psutil.virtual_memory().total / 2**30, 1), "gpus": gpus,
            "system": f"{platform.system()} {platform.machine()}"}


def inputs(stores: list[str], checkpoints: list[str]) -> list[dict[str, str]]:
    """Raw sources, as the stores recorded them, and the checkpoints, each with its sha256 (or version)."""
    rows: dict[str, str] = {}
    for store in stores:
        try:
            with h5py.File(store) as file:
                rows.update(json.loads(file.attrs["sources"]))
        except (OSError, KeyError) as error:
            raise OODError(f"store {store} cannot be read ({error}); delete it and run again") from None
    rows.update({path: sha256(path) for path in checkpoints})
    return [{"path": path, "sha256": digest} for path, digest in sorted(rows.items())]


def costs(folder: Path) -> list[dict[str, Any]]:
    """Wall seconds and peak memory (MB, resident) of each job, from Snakemake's benchmark files."""
    rows = []
    for path in sorted(folder.rglob("*.tsv")):
        with open(path, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file, delimiter="\t"):
                memory = row.get("max_rss", "NA")
                rows.append({"job": path.relative_to(folder).with_suffix("").as_posix(), "seconds": float(row["s"]),
                             "peak_mb": None if memory in ("NA", "-", "") else float(memory)})
    return rows


if __name__ == "__main__":
    main()
