"""The progress of a run on a terminal: a bar for each paper, what is running, its epoch, time left.

One picture for two readers: ``snakemake`` draws it while its jobs run (:class:`Follower`), and
``workflow_scripts.progress --watch`` beside a run. Where the output is no terminal nothing is drawn, and a run says in
one line when a paper is done.
"""

from __future__ import annotations

import atexit
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console, Group, RenderableType
from rich.file_proxy import FileProxy
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from workflow_scripts.planning.dag import Job, Jobs
from workflow_scripts.planning.snapshot import Snapshot, stamp
from workflow_scripts.planning.text import hours
from workflow_scripts.wiring import snakemake_private as private
from workflow_scripts.work.plan import Plan

PAUSE, PAUSE_IN_LOGS = 2.0, 15.0
"""Seconds between two looks at the files of a run: on a terminal, and in a log."""
SHARE = 20
"""How many times as long as a look takes is the pause after it, at least."""
SHOWN = 6
"""Running jobs, and failed ones, that are listed."""


def bars(snapshot: Snapshot, variant: str) -> RenderableType:
    """The picture of one moment."""
    count = Counter(found.state for found in snapshot.found.values())
    table = Table.grid(padding=(0, 2))
    for justify in ("left", "left", "right", "right"):
        table.add_column(justify=justify, no_wrap=True)
    for paper, jobs in snapshot.papers.items():
        if jobs:
            table.add_row(paper, *_row(snapshot, jobs))
    table.add_row(Text("all", style="bold"), *_row(snapshot, snapshot.jobs))
    states = [f"{count[name]} {name}" for name in ("running", "queued", "failed", "stopped") if count[name]]
    head = Text(f"{variant}: {count['done']} of {len(snapshot.jobs)} jobs done{''.join(f', {one}' for one in states)}")
    return Group(head, table, *_running(snapshot), *_failed(snapshot))


def _row(snapshot: Snapshot, jobs: Sequence[Job]) -> tuple[RenderableType, str, str]:
    done = sum(snapshot.found[job].state == "done" for job in jobs)
    left = "done" if done == len(jobs) else f"{snapshot.left(jobs)} left"
    return ProgressBar(total=len(jobs), completed=done, width=30), f"{done}/{len(jobs)}", left


def _running(snapshot: Snapshot) -> list[Text]:
    """A line for each running job: its place, epoch and time left."""
    running = [job for job in snapshot.jobs if snapshot.found[job].state == "running"]
    lines = []
    for job in sorted(running, key=lambda job: -snapshot.found[job].elapsed)[:SHOWN]:
        found = snapshot.found[job]
        left = f"{hours(found.left)} left" if found.left else ""
        words = [found.epoch, f"{hours(found.elapsed)} so far", left]
        lines.append(Text(f"  {snapshot.name(job)}  {', '.join(filter(None, words))}", no_wrap=True,
                          overflow="ellipsis"))
    more = len(running) - SHOWN
    return lines + ([Text(f"  and {more} more")] if more > 0 else [])


def _failed(snapshot: Snapshot) -> list[Text]:
    """A line for each failed job: its log."""
    failed = [job for job in snapshot.jobs if snapshot.found[job].state == "failed"]
    lines = [Text(f"  failed: {job.log or job.rule}", no_wrap=True, overflow="ellipsis") for job in failed[:SHOWN]]
    return lines + ([Text(f"  and {len(failed) - SHOWN} more failed")] if len(failed) > SHOWN else [])


def finished(snapshot: Snapshot) -> list[str]:
    """The papers all of whose jobs are done."""
    return [paper for paper, jobs in snapshot.papers.items()
            if jobs and all(snapshot.found[job].state == "done" for job in jobs)]


def _counted(snapshot: Snapshot) -> str:
    """``12 jobs for 2 papers``; of targets that no paper needs the jobs alone."""
    jobs, papers = len(snapshot.jobs), sum(map(bool, snapshot.papers.values()))
    text = f"{jobs} job{'s' * (jobs != 1)}"
    return f"{text} for {papers} paper{'s' * (papers != 1)}" if papers else text


def watch(look: Callable[[], Snapshot], variant: str, seconds: float, console: Console) -> None:
    """Draw until all is done."""
    with Live(console=console, auto_refresh=False) as live:
        while True:
            snapshot = look()
            live.update(bars(snapshot, variant), refresh=True)
            if all(found.state == "done" for found in snapshot.found.values()):
                return
            time.sleep(seconds)


class Follower(threading.Thread):
    """Shows a run while it runs, from a thread of Snakemake's own process.

    It reads files alone, and whatever goes wrong in it never ends the run.

    Args:
        look: takes a snapshot of the run.
        variant: its name.
        stream: the terminal or log.
        redirect: told where Snakemake's messages go while bars are drawn, and at the end where they went before.
    """

    def __init__(self, look: Callable[[], Snapshot], variant: str, stream: TextIO,
                 redirect: Callable[[TextIO], None] = lambda stream: None):
        super().__init__(daemon=True)
        self.look, self.variant, self.stream, self.redirect = look, variant, stream, redirect
        self.over = threading.Event()
        self.began = time.time()

    def run(self) -> None:
        try:
            if self.stream.isatty():
                self._draw()
            else:
                self._tell()
        except Exception as error:  # the run is what matters
            print(f"progress is not shown ({type(error).__name__}: {error}); uv run ood progress shows it",
                  file=self.stream)

    def stop(self) -> None:
        """Show the last state and let the terminal go."""
        self.over.set()
        self.join(timeout=10)

    def _draw(self) -> None:
        console = Console(file=self.stream)
        with ExitStack() as undo:
            live = undo.enter_context(Live(console=console, auto_refresh=False, redirect_stdout=False,
                                           redirect_stderr=False))
            self.redirect(FileProxy(console, self.stream))  # above the bars
            undo.callback(self.redirect, self.stream)
            last = False
            while not last:
                last = self.over.is_set()
                started = time.monotonic()
                live.update(bars(self.look(), self.variant), refresh=True)
                self.over.wait(max(PAUSE, SHARE * (time.monotonic() - started)))

    def _tell(self) -> None:
        told: set[str] = set()
        last = False
        while not last:
            last = self.over.is_set()
            started = time.monotonic()
            snapshot = self.look()
            if not told:
                told.add("")
                print(f"{_counted(snapshot)}; to see each with its command: snakemake --printshellcmds",
                      file=self.stream, flush=True)
            for paper in finished(snapshot):
                if paper not in told:
                    told.add(paper)
                    print(f"{paper}: {len(snapshot.papers[paper])} jobs done, {hours(time.time() - self.began)} after "
                          "the start", file=self.stream, flush=True)
            self.over.wait(max(PAUSE_IN_LOGS, SHARE * (time.monotonic() - started)))


def follow(plan: Plan, workflow: Any, stream: TextIO | None = None) -> Follower:
    """Start to show a run that is about to start its first job.

    Args:
        plan: what it is a run of.
        workflow: Snakemake's.
        stream: left out: the terminal.
    """
    jobs, folder = Jobs(plan, private.every(workflow)), Path.cwd()
    due = {output: stamp(folder / output) for output in private.due(workflow)}
    follower = Follower(lambda: Snapshot(jobs, folder, due), plan.config.variant, stream or sys.stderr,
                        private.redirect_terminal)
    follower.start()
    atexit.register(follower.stop)  # where Snakemake ends without a word: it gives the terminal its cursor back
    return follower
