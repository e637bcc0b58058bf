"""What computed a result: revision of the checkout, packages, machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import psutil

from workflow_scripts.core.digest import NUMERICAL, ROOT


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
