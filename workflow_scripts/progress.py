"""How far a run is: per paper what is done, running, failed and waiting, and roughly how long is left.

    uv run python -m workflow_scripts.progress                                       the default run
    uv run python -m workflow_scripts.progress --configfile config/goe.yaml --watch  again every ten seconds

Asks Snakemake once for the jobs of a configuration, and from then on only reads files, so it works during a run and
after it, and on any machine that sees the folder. A job is

    done      its output is there, and no marker says that it is unfinished
    running   Snakemake's marker of a started job (.snakemake/incomplete) stands, and its log has begun since
    queued    the marker stands, but the log has not begun: the scheduler has not started it
    stopped   the marker stands, but neither Snakemake's lock nor the log says that anything goes on
    failed    the log of Snakemake's last run says so, and none of the above
    waiting   all others

Done is what is there, up to date or not (that `snakemake -n` says). Times are rough: the median of the benchmark files
of done jobs that are alike (the same training with another seed; else the same kind of job), and of a running training
what its epochs took so far.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from workflow_scripts.core.errors import stage
from workflow_scripts.planning import dag, setting, state
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
SECONDS, SHOWN, FRESH, QUIET = 10, 12, 60, 1800
"""Seconds between two pages of --watch; jobs listed in each state; age in seconds of the last word in a log up to which
a job is at work without Snakemake's lock, and from which on its silence is said."""
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
    """

    def __init__(self, jobs: Jobs, folder: Path):
        self.folder, self.root, self.now = folder, paths.root(jobs.plan), time.time()
        measured = Measured(folder, self.root)
        self.jobs = [job for job in jobs.page() if job.kind != "archives"]
        self.papers = {paper: [job for job in jobs.paper(paper) if job.kind != "archives"]
                       for paper in jobs.plan.papers}
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
            if all((self.folder / output).exists() for output in job.outputs):
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


def _group(job: Job) -> str:
    return next((name for name, folders in GROUPS.items() if job.kind in folders), "results")


def page(snapshot: Snapshot, variant: str) -> str:
    """The text for a terminal of 80 columns."""
    count = Counter(found.state for found in snapshot.found.values())
    columns = [*GROUPS, "results"]
    total, at_once = len(snapshot.jobs), count["running"]
    lines = [f"{variant}: {count['done']} of {total} jobs done"
             + "".join(f", {count[name]} {name}" for name in STATES[1:] if count[name])]
    if count["done"] < total:
        lines.append(f"left, roughly: {snapshot.left(snapshot.jobs)} of job time"
                     + (f", {at_once} at once now" if at_once > 1 else ""))
    lines += ["", f"{'paper':<16}" + "".join(f"{group:>10}" for group in columns) + f"{'left':>14}"]
    for paper, own in snapshot.papers.items():
        cells = []
        for group in columns:
            states = [snapshot.found[job].state for job in own if _group(job) == group]
            cells.append(f"{states.count('done')}/{len(states)}" if states else "-")
        left = "done" if all(snapshot.found[job].state == "done" for job in own) else snapshot.left(own)
        lines.append(f"{paper[:15]:<16}" + "".join(f"{cell:>10}" for cell in cells) + f"{left:>14}")
    for name in STATES[1:-1]:
        lines += _listed(snapshot, name, [job for job in snapshot.jobs if snapshot.found[job].state == name])
    return "\n".join(line.rstrip() for line in lines)


def _listed(snapshot: Snapshot, name: str, jobs: Sequence[Job]) -> list[str]:
    lines = ["", name] if jobs else []
    for job in jobs[:SHOWN]:
        found = snapshot.found[job]
        what = f"  {snapshot.name(job)}"
        if name == "running":
            left = "" if found.left is None else f", {hours(found.left)} left" if found.left else ", any moment"
            how = f"{found.epoch + ', ' if found.epoch else ''}{hours(found.elapsed)} so far{left}"
            how += f"; no word for {hours(found.quiet)}" if found.quiet > QUIET else ""
            lines += [f"{what}  {how}"] if len(what) + len(how) < 78 else [what, f"      {how}"]
        elif name == "failed":
            said = state.last_line(snapshot.folder / job.log)[:73]
            lines += [what, *([f"      {said}"] if said else []), f"      log: {job.log}"]
        else:
            lines.append(what)
    if len(jobs) > SHOWN:
        lines.append(f"  and {len(jobs) - SHOWN} more")
    return lines


@stage
def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m workflow_scripts.progress", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    setting.add(parser)
    parser.add_argument("--watch", nargs="?", type=float, const=SECONDS, metavar="SECONDS",
                        help=f"again every so many seconds ({SECONDS}) until all is done, or Ctrl-C")
    args = parser.parse_args(argv)
    plan = setting.read(args.configfile, args.config)
    jobs = dag.read(plan, setting.words(args.configfile, args.config))
    try:
        while True:
            snapshot = Snapshot(jobs, args.directory)
            text = page(snapshot, plan.config.variant)
            if args.watch:
                text = f"{time.strftime('%H:%M:%S')}  {text}\n"
            print(text, flush=True)
            if not args.watch or all(found.state == "done" for found in snapshot.found.values()):
                break
            time.sleep(args.watch)
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
