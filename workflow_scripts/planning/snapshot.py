"""What is done, running, failed and waiting of a run's jobs at one moment, by the files that it leaves.

The states are those that :mod:`workflow_scripts.progress` explains.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from workflow_scripts.planning import state
from workflow_scripts.planning.dag import Job, Jobs
from workflow_scripts.planning.measured import Measured, kind
from workflow_scripts.planning.text import hours
from workflow_scripts.wiring import paths

GROUPS = {
    "data": ("lmdb", "data"),
    "networks": ("starts", "models", "masks", "trunk", "selection"),
    "features": ("features",),
    "scores": ("precompute", "sweep", "scores"),
}
"""Folders of the columns; all others but downloads are results."""
FRESH = 60
"""Age in seconds of the last word in a log up to which a job is at work without Snakemake's lock."""
STATES = ("done", "running", "queued", "stopped", "failed", "waiting")


@dataclass(frozen=True)
class Found:
    """What is known of a job: its state, the seconds since it started and since the last word in its log, its epochs,
    and the seconds left (or ``None``)."""

    state: str
    elapsed: float = 0.0
    quiet: float = 0.0
    epoch: str = ""
    left: float | None = None


class Snapshot:
    """The state of all jobs at one moment, downloads left out.

    Args:
        jobs: of the plan.
        folder: where Snakemake runs.
        due: outputs of the jobs of one run -> their :func:`stamp` before it, which they have until they are made anew;
            no other job is counted then. Left out: all jobs are, and an output that is there is done.
    """

    def __init__(self, jobs: Jobs, folder: Path, due: Mapping[str, int | None] | None = None):
        self.folder, self.root, self.now = folder, paths.root(jobs.plan), time.time()
        self.due = due or {}
        measured = Measured(folder, self.root)
        self.jobs = [job for job in jobs.page() or jobs.all() if self._counts(job)]
        self.papers = {paper: [job for job in jobs.paper(paper) if self._counts(job)] for paper in jobs.plan.papers}
        self.started = state.markers(folder)
        self.locked, self.failed = state.locked(folder), state.failed(folder)
        self.times: dict[tuple[str, ...], list[float]] = {}
        for job in self.jobs:
            if seconds := measured.of(job):
                for key in _alike(job):
                    self.times.setdefault(key, []).append(seconds)
        self.found = {job: self.find(job) for job in self.jobs}

    def find(self, job: Job) -> Found:
        usual = next((median(self.times[key]) for key in _alike(job) if key in self.times), None)
        begun = next((self.started[output] for output in job.outputs if output in self.started), None)
        if begun is None:
            if all(self._made(output) for output in job.outputs):
                return Found("done", left=0.0)
            return Found("failed" if self.failed & set(job.outputs) else "waiting", left=usual)
        log = self.folder / job.log
        changed = log.stat().st_mtime if log.is_file() else 0.0
        if not self.locked and self.now - max(changed, begun) > FRESH:
            return Found("stopped", left=usual)
        if changed < begun - 1:
            return Found("queued", left=usual)
        elapsed, quiet = max(0.0, self.now - begun), self.now - changed
        first, last, total = state.epochs(log)
        if last:
            left = elapsed * (total - last) / (last - first + 1)
            return Found("running", elapsed, quiet, f"epoch {last}/{total}", left)
        return Found("running", elapsed, quiet, left=None if usual is None else max(0.0, usual - elapsed))

    def _made(self, output: str) -> bool:
        found = stamp(self.folder / output)
        return found is not None and found != self.due.get(output)

    def _counts(self, job: Job) -> bool:
        return job.kind != "archives" and (not self.due or not self.due.keys().isdisjoint(job.outputs))

    def name(self, job: Job) -> str:
        """A job as people read it: the place of its log."""
        return job.log.removeprefix(f"{self.root}/logs/").removesuffix(".log")

    def left(self, jobs: Iterable[Job]) -> str:
        """Time of these jobs one after the other; jobs that nothing is known of are named."""
        seconds = [self.found[job].left for job in jobs]
        text = hours(sum(filter(None, seconds)))
        unknown = sum(left is None for left in seconds)
        return text if not unknown else "?" if unknown == sum(left != 0 for left in seconds) else f"{text} + ?"


def _alike(job: Job) -> list[tuple[str, ...]]:
    """Keys of jobs that take as long, the closest first."""
    run = job.run
    if run is None:
        return [(job.rule,)]
    what = job.name or run.recipe.method or ""
    return [(kind(job),), (job.rule, what, run.id, run.network.name), (job.rule, what), (job.rule,)]


def stamp(path: Path) -> int | None:
    """When a file was written, in ns; ``None`` where there is none."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def group_of(job: Job) -> str:
    """The column that a job is counted in."""
    return next((name for name, folders in GROUPS.items() if job.kind in folders), "results")
