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
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress

from workflow_scripts.core.commands import described
from workflow_scripts.core.errors import stage
from workflow_scripts.planning import dag, setting, state
from workflow_scripts.planning.dag import Job
from workflow_scripts.planning.snapshot import GROUPS, STATES, Snapshot, group_of
from workflow_scripts.planning.text import hours

SECONDS, SHOWN, QUIET = 10, 12, 1800
"""Seconds between two pages of --watch; jobs listed in each state; age in seconds of the last word in a log from which
on its silence is said."""


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
            states = [snapshot.found[job].state for job in own if group_of(job) == group]
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


def parser() -> argparse.ArgumentParser:
    words = described(__spec__, __doc__)
    setting.add(words)
    words.add_argument("--watch", nargs="?", type=float, const=SECONDS, metavar="SECONDS",
                       help=f"again every so many seconds ({SECONDS}) until all is done, or Ctrl-C")
    return words


@stage
def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    args = parser().parse_args(argv)
    plan = setting.read(args.configfile, args.config)
    jobs = dag.read(plan, setting.words(args.configfile, args.config))
    variant = plan.config.variant

    def look() -> Snapshot:
        return Snapshot(jobs, args.directory)

    with suppress(KeyboardInterrupt):
        if args.watch and sys.stdout.isatty():
            from workflow_scripts.planning.screen import Console, watch  # draws

            watch(look, variant, args.watch, Console())
        else:
            tell(look, variant, args.watch)


def tell(look: Callable[[], Snapshot], variant: str, seconds: float | None) -> None:
    """Print the page: once, or every so many seconds until all is done."""
    while True:
        snapshot = look()
        text = page(snapshot, variant)
        print(f"{time.strftime('%H:%M:%S')}  {text}\n" if seconds else text, flush=True)
        if not seconds or all(found.state == "done" for found in snapshot.found.values()):
            return
        time.sleep(seconds)


if __name__ == "__main__":
    main()
