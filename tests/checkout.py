"""Fresh checkouts of this repository for tests that run the workflow as a user would."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HANGS = 3600  # seconds after which a command hangs, on a busy machine too


def copy(target: Path) -> Path:
    """What git would clone (with changes not yet committed) below ``target``; no results, no caches."""
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                            capture_output=True, text=True, check=True).stdout.splitlines()
    for name in listed:
        source = ROOT / name
        if source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)
    return target


def take_over(finished: Path, folder: Path) -> Path:
    """Give ``folder`` the default run of another checkout, whose output is kept in ``.snakemake/terminal.txt``."""
    shutil.copytree(finished / "results" / "small", folder / "results" / "small")
    shutil.copy2(finished / "results" / "report.html", folder / "results" / "report.html")
    shutil.copytree(finished / ".snakemake" / "metadata", folder / ".snakemake" / "metadata")
    said = (finished / ".snakemake" / "terminal.txt").read_text()
    (folder / "terminal.txt").write_text(said.replace(finished.resolve().as_uri(), folder.resolve().as_uri()))
    return folder


def snakemake(folder: Path, *words: str, timeout: int = HANGS, **environment: str) -> subprocess.CompletedProcess[str]:
    """``snakemake`` in ``folder``, as a user runs it; output and errors together."""
    return subprocess.run([sys.executable, "-m", "snakemake", *words], cwd=folder, text=True, timeout=timeout,
                          check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env={**os.environ, **environment})


def would_run(folder: Path, *words: str, **environment: str) -> Counter[str]:
    """Rule -> number of jobs that a dry run lists (without the target ``all``)."""
    done = snakemake(folder, "--dry-run", "--cores", "2", *words, **environment)
    assert done.returncode == 0, done.stdout[-3000:]
    table = done.stdout.split("Job stats:")[-1] if "Job stats:" in done.stdout else ""
    jobs = Counter({name: int(count) for name, count in re.findall(r"^(\w\S*) +(\d+)$", table, re.MULTILINE)})
    del jobs["total"], jobs["all"], jobs["job"]
    return jobs


def pretend_finished(folder: Path, *words: str) -> None:
    """Make every output an empty file and let Snakemake record today's parameters for it, without running a job."""
    done = snakemake(folder, "--summary", "--cores", "1", *words)
    assert done.returncode == 0, done.stdout[-3000:]
    for line in done.stdout.splitlines():
        name = line.split("\t")[0]
        if name.startswith("results/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
    done = snakemake(folder, "--touch", "--forceall", "--cores", "1", *words)
    assert done.returncode == 0, done.stdout[-3000:]
