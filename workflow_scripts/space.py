"""Where the disk has gone, what it would cost to make again, and room made of what is cheap.

    uv run python -m workflow_scripts.space du                        per stage: files, size, time to make them again
    uv run python -m workflow_scripts.space prune                     what could go; nothing is deleted
    uv run python -m workflow_scripts.space prune --yes               delete it
    uv run python -m workflow_scripts.space prune --stage features --at-most 120 --configfile config/goe.yaml

Only features, class means, scores, distances and panels can go: files that no training reads, of jobs whose time is
known from their benchmark and is at most --at-most seconds, whose own inputs are there (or can go likewise), and which
every job behind them has read. Networks, stores and downloads never go. Afterwards the results page is still up to
date; a job that needs such a file later makes it again.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from workflow_scripts.core.commands import described
from workflow_scripts.core.errors import OODError, stage, unknown
from workflow_scripts.planning import dag, setting, state
from workflow_scripts.planning.dag import Job, Jobs
from workflow_scripts.planning.estimate import there
from workflow_scripts.planning.measured import Measured
from workflow_scripts.planning.text import hours, size, table
from workflow_scripts.wiring import paths

PRUNABLE = ("features", "precompute", "scores", "distances", "panels")
"""Folders of a run whose files can go."""


def parser() -> argparse.ArgumentParser:
    words = described(__spec__, __doc__)
    words.add_argument("command", choices=["du", "prune"])
    setting.add(words)
    words.add_argument("--stage", nargs="+", default=list(PRUNABLE), help=f"of {', '.join(PRUNABLE)}; default: all")
    words.add_argument("--at-most", type=float, default=600.0, metavar="SECONDS",
                       help="that making a file again may take (default: %(default)g)")
    words.add_argument("--yes", action="store_true", help="delete; without it prune only says what would go")
    return words


@stage
def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    args = parser().parse_args(argv)
    for name in args.stage:
        if name not in PRUNABLE:
            raise unknown("--stage", name, PRUNABLE)
    plan = setting.read(args.configfile, args.config)
    root = paths.root(plan)
    if not (args.directory / root).is_dir():
        raise OODError(f"there is no folder {args.directory / root}; run the workflow first, or name with "
                       "--configfile and --directory what has run")
    jobs = dag.read(plan, setting.words(args.configfile, args.config))
    measured = Measured(args.directory, root)
    if args.command == "du":
        print("\n".join(du(jobs, measured, args.directory)))
        return
    if args.yes and state.locked(args.directory):
        raise OODError("a run holds this folder (.snakemake/locks); wait for its end, or ask python -m "
                       "workflow_scripts.doctor whether the lock is stale")
    chosen = prunable(jobs, measured, args.directory, args.stage, args.at_most)
    print("\n".join(listing(chosen, measured, args.directory)))
    if args.yes:
        delete(chosen, args.directory)
        print("deleted")
    elif chosen:
        print("Nothing was deleted; --yes does it.")


def du(jobs: Jobs, measured: Measured, folder: Path) -> list[str]:
    """Per stage: files that are there, their size, and how long their jobs took."""
    rows, of_jobs, total = [], set(), 0
    groups: dict[str, list[Job]] = {}
    for job in jobs.page():
        groups.setdefault(job.rule, []).append(job)
    for rule, group in groups.items():
        names = [name for job in group for name in job.outputs if (folder / name).is_file()]
        of_jobs |= set(names)
        count = sum((folder / name).stat().st_size for name in names)
        total += count
        made = [job for job in group if there(job, folder) is not None]
        took = [measured.of(job) for job in made]
        blank = sum(seconds is None for seconds in took)
        cost = hours(sum(s for s in took if s is not None)) + (f", {blank} jobs not known" if blank else "")
        can_go = "yes" if group[0].kind in PRUNABLE else "no"
        rows.append([rule, str(len(names)), size(count), cost if made else "", can_go])
    root = folder / paths.root(jobs.plan)
    others = [path for path in root.rglob("*") if path.is_file() and path.relative_to(folder).as_posix() not in of_jobs]
    logs = [path for path in others if path.relative_to(root).parts[0] in ("logs", "benchmarks")]
    for name, group in (("logs and benchmarks", logs), ("not of this configuration", [
            path for path in others if path not in set(logs)])):
        count = sum(path.stat().st_size for path in group)
        total += count
        rows.append([name, str(len(group)), size(count), "", "no"])
    return table(["stage", "files", "size", "to make again", "can be pruned"], [
        *rows, ["together", "", size(total), "", ""]])


def prunable(jobs: Jobs, measured: Measured, folder: Path, stages: Iterable[str], at_most: float) -> list[Job]:
    """The jobs whose files can go."""
    page = jobs.page()
    needed = jobs.upstream_of_training
    chosen = {job for job in page if job.kind in stages and there(job, folder) is not None
              and not needed & {*job.outputs} and (took := measured.of(job)) is not None and took <= at_most}
    readers: dict[str, list[Job]] = {}
    for job in page:
        for name in job.inputs:
            readers.setdefault(name, []).append(job)
    while True:
        going = {name for job in chosen for name in job.outputs}
        kept = {job for job in chosen
                if all(name in going or (folder / name).is_file() for name in job.inputs)
                and all(reader in chosen or there(reader, folder) is not None
                        for name in job.outputs for reader in readers.get(name, ()))}
        if kept == chosen:
            return [job for job in page if job in chosen]
        chosen = kept


def listing(chosen: list[Job], measured: Measured, folder: Path) -> list[str]:
    """What would go, per stage."""
    if not chosen:
        return ["Nothing can go: no file is of a job that is cheap, known and read by all that needs it."]
    rows = []
    for rule in dict.fromkeys(job.rule for job in chosen):
        group = [job for job in chosen if job.rule == rule]
        rows.append([rule, str(sum(len(job.outputs) for job in group)), size(sum(there(job, folder) for job in group)),
                     hours(sum(measured.of(job) for job in group))])
    rows.append(["together", str(sum(len(job.outputs) for job in chosen)),
                 size(sum(there(job, folder) for job in chosen)), hours(sum(measured.of(job) for job in chosen))])
    return table(["stage", "files", "size", "to make again"], rows)


def delete(chosen: list[Job], folder: Path) -> None:
    """Delete the files of these jobs, and the folders that are empty then."""
    for job in chosen:
        for name in job.outputs:
            path = folder / name
            path.unlink()
            if not any(path.parent.iterdir()):
                path.parent.rmdir()


if __name__ == "__main__":
    main()
