"""How far a run is: per paper what is done, running, failed and waiting, and roughly how long is left.

    uv run python -m workflow_scripts.progress                                       the default run
    uv run python -m workflow_scripts.progress --configfile config/goe.yaml --watch  again every ten seconds

Only reads files, so it works during a run and after it, and on any machine that sees the folder. A job is

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
import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import yaml

from workflow_scripts.config.expand import read_plan
from workflow_scripts.config.wiring import Wiring
from workflow_scripts.digest import ROOT
from workflow_scripts.errors import OODError, stage
from workflow_scripts.jobs import GROUPS, Job, epochs, failed, jobs_of, last_line, locked, markers

SECONDS, SHOWN, FRESH, QUIET = 10, 12, 60, 1800
"""Seconds between two looks of --watch; jobs listed in each state; age in seconds of the last word in a log up to which
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


class Look:
    """The state of all jobs at one moment.

    Args:
        wire: the plan of the run.
        folder: where Snakemake runs.
    """

    def __init__(self, wire: Wiring, folder: Path):
        self.folder, self.root, self.now = folder, folder / wire.root, time.time()
        self.jobs = jobs_of(wire)
        self.started = markers(folder)
        self.locked, self.failed = locked(folder), failed(folder)
        self.times: dict[tuple[str, ...], list[float]] = {}
        for job in self.jobs:
            if seconds := _benchmark(self.root / "benchmarks" / f"{job.log}.tsv"):
                for key in job.alike:
                    self.times.setdefault(key, []).append(seconds)
        self.found = {job: self.look(job) for job in self.jobs}

    def look(self, job: Job) -> Found:
        usual = next((median(self.times[key]) for key in job.alike if key in self.times), None)
        begun = next((self.started[output] for output in job.outputs if output in self.started), None)
        if begun is None:
            if all((self.folder / output).exists() for output in job.outputs):
                return Found("done", left=0.0)
            return Found("failed" if self.failed & set(job.outputs) else "waiting", left=usual)
        log = self.log(job)
        changed = log.stat().st_mtime if log.is_file() else 0.0
        if not self.locked and self.now - max(changed, begun) > FRESH:
            return Found("stopped", left=usual)
        if changed < begun - 1:
            return Found("queued", left=usual)
        elapsed, quiet = max(0.0, self.now - begun), self.now - changed
        first, last, total = epochs(log)
        if last:
            left = elapsed * (total - last) / (last - first + 1)
            return Found("running", elapsed, quiet, f"epoch {last}/{total}", left)
        return Found("running", elapsed, quiet, left=None if usual is None else max(0.0, usual - elapsed))

    def log(self, job: Job) -> Path:
        return self.root / "logs" / f"{job.log}.log"

    def left(self, jobs: Iterable[Job]) -> str:
        """Time of these jobs one after the other; jobs that nothing is known of are named."""
        known = [self.found[job].left for job in jobs]
        text = duration(sum(filter(None, known)))
        unknown = sum(left is None for left in known)
        return text if not unknown else "?" if unknown == sum(left != 0 for left in known) else f"{text} + ?"


def _benchmark(path: Path) -> float | None:
    try:
        return float(path.read_text(encoding="utf-8").splitlines()[1].split("\t")[0])
    except (OSError, IndexError, ValueError):
        return None


def duration(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3.5 h``, ``2.1 d``."""
    for size, unit, digits in ((86400, "d", 1), (3600, "h", 1), (60, "min", 0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.{digits}f} {unit}"
    return f"{seconds:.0f} s"


def page(look: Look, variant: str) -> str:
    """The text for a terminal of 80 columns."""
    state = Counter(found.state for found in look.found.values())
    total, at_once = len(look.jobs), state["running"]
    lines = [f"{variant}: {state['done']} of {total} jobs done"
             + "".join(f", {state[name]} {name}" for name in STATES[1:] if state[name])]
    if state["done"] < total:
        lines.append(f"left, roughly: {look.left(look.jobs)} of job time"
                     + (f", {at_once} at once now" if at_once > 1 else ""))
    lines += ["", f"{'paper':<16}" + "".join(f"{group:>10}" for group in GROUPS) + f"{'left':>14}"]
    for paper in dict.fromkeys(paper for job in look.jobs for paper in job.papers):
        own = [job for job in look.jobs if paper in job.papers]
        cells = []
        for group in GROUPS:
            states = [look.found[job].state for job in own if job.group == group]
            cells.append(f"{states.count('done')}/{len(states)}" if states else "-")
        left = "done" if all(look.found[job].state == "done" for job in own) else look.left(own)
        lines.append(f"{paper[:15]:<16}" + "".join(f"{cell:>10}" for cell in cells) + f"{left:>14}")
    for name in STATES[1:-1]:
        lines += _listed(look, name, [job for job in look.jobs if look.found[job].state == name])
    return "\n".join(line.rstrip() for line in lines)


def _listed(look: Look, name: str, jobs: Sequence[Job]) -> list[str]:
    lines = ["", name] if jobs else []
    for job in jobs[:SHOWN]:
        found = look.found[job]
        what = f"  {job.log}"
        if name == "running":
            left = "" if found.left is None else f", {duration(found.left)} left" if found.left else ", any moment"
            how = f"{found.epoch + ', ' if found.epoch else ''}{duration(found.elapsed)} so far{left}"
            how += f"; no word for {duration(found.quiet)}" if found.quiet > QUIET else ""
            lines += [f"{what}  {how}"] if len(what) + len(how) < 78 else [what, f"      {how}"]
        elif name == "failed":
            log = look.log(job)
            said = last_line(log)[:73]
            lines += [what, *([f"      {said}"] if said else []), f"      log: {os.path.relpath(log, look.folder)}"]
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
    parser.add_argument("--configfile", type=Path, default=ROOT / "config.yaml", help="default: config.yaml")
    parser.add_argument("--directory", type=Path, default=Path(), help="where snakemake runs (default: here)")
    parser.add_argument("--watch", nargs="?", type=float, const=SECONDS, metavar="SECONDS",
                        help=f"again every so many seconds ({SECONDS}) until all is done, or Ctrl-C")
    args = parser.parse_args(argv)
    if not args.configfile.is_file():
        raise OODError(f"--configfile: there is no file {args.configfile}")
    plan = read_plan(yaml.safe_load(args.configfile.read_text(encoding="utf-8")), ROOT)
    wire = Wiring(plan)
    try:
        while True:
            look = Look(wire, args.directory)
            text = page(look, plan.config.variant)
            if args.watch:
                text = f"{time.strftime('%H:%M:%S')}  {text}\n"
            print(text, flush=True)
            if not args.watch or all(found.state == "done" for found in look.found.values()):
                break
            time.sleep(args.watch)
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
