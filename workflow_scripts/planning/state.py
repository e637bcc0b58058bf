"""What Snakemake and the jobs leave on the disk of their state, for whoever looks at a run from outside."""

from __future__ import annotations

import base64
import re
from pathlib import Path

from workflow_scripts.planning.final_message import failures
from workflow_scripts.wiring.snakemake_private import SELECTS

_EPOCH = re.compile(rb"^epoch (\d+)/(\d+) ", re.MULTILINE)


def markers(folder: Path) -> dict[str, float]:
    """Outputs of jobs that were started (or handed to a scheduler) and have not ended, and when, in Unix time."""
    top, found = folder / ".snakemake" / "incomplete", {}
    for path in top.rglob("*") if top.is_dir() else ():
        try:
            if path.is_file():
                # a name longer than a file's may be is divided into folders, which begin with @
                coded = "".join(part.removeprefix("@") for part in path.relative_to(top).parts)
                found[base64.b64decode(coded, altchars=b"-_", validate=True).decode()] = path.stat().st_mtime
        except (OSError, ValueError):
            continue  # ended while we looked, or not a marker
    return found


def locked(folder: Path) -> bool:
    """Whether a Snakemake that runs jobs has this folder, or one that was killed had it."""
    return any((folder / ".snakemake" / "locks").glob("*.lock"))


def failed(folder: Path) -> set[str]:
    """Outputs of the failed jobs of the last run (not of dry runs)."""
    for path in sorted((folder / ".snakemake" / "log").glob("*.snakemake.log"), reverse=True):
        text = path.read_text(encoding="utf-8", errors="replace")
        if SELECTS in text:
            return {name.strip() for failure in failures(text) for name in failure.output.split(", ")}
    return set()


def epochs(log: Path) -> tuple[int, int, int]:
    """The first and the last epoch that a training's log tells of, and how many there are; zeros where none."""
    try:
        found = _EPOCH.findall(log.read_bytes())
    except OSError:
        return 0, 0, 0
    return (int(found[0][0]), int(found[-1][0]), int(found[-1][1])) if found else (0, 0, 0)


def last_line(log: Path) -> str:
    """The last line of a log that is not empty."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
