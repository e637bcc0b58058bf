"""What a run will cost, before it starts: GPU-hours, disk, downloads, what to bring by hand, jobs, and what runs again.

    uv run python -m workflow_scripts.plan                                           the default run
    uv run python -m workflow_scripts.plan goe npos --configfile config/paper.yaml   two papers of it
    uv run python -m workflow_scripts.plan --config seeds=5                          with another value
    uv run python -m workflow_scripts.plan --quick --configfile config/goe.yaml      not asking Snakemake what would run
    uv run python -m workflow_scripts.plan --on a100 --precision bfloat16            on a named card, in half precision
    uv run python -m workflow_scripts.plan --targets                                 what can be asked for by name

Hours are estimates: of the same job where it has run in this results folder, of its other seeds, else counted
operations over what a machine does (`config/costs.yaml`; --on, --benchmark, --gflops, --costs): `gpu` and `cpu` are
assumptions, a named card has rates that were measured. Nothing is started or written.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import get_args

from workflow_scripts import why
from workflow_scripts.core.commands import described
from workflow_scripts.core.errors import OODError, stage, unknown
from workflow_scripts.planning import dag, networks, setting
from workflow_scripts.planning.dag import Due, Job, Jobs
from workflow_scripts.planning.estimate import Basis, Estimator, there
from workflow_scripts.planning.machines import PRECISIONS
from workflow_scripts.planning.measured import Measured
from workflow_scripts.planning.text import hours, size, table
from workflow_scripts.wiring import paths
from workflow_scripts.wiring.data import raw_splits
from workflow_scripts.wiring.targets import targets
from workflow_scripts.work.missing import missing_data
from workflow_scripts.work.plan import Plan


def parser() -> argparse.ArgumentParser:
    words = described(__spec__, __doc__)
    words.add_argument("target", nargs="*", help="papers, tables, figures or files; left out: everything")
    setting.add(words)
    words.add_argument("--quick", action="store_true", help="count what is not there; do not ask what would run again")
    words.add_argument("--on", metavar="MACHINE", help="a machine of the table of costs: gpu, cpu, a100, h100, h200; "
                       "default: gpu or cpu by the key device")
    words.add_argument("--precision", choices=PRECISIONS, help="of trainings and features; default: as the "
                       "configuration has it (training.precision, features.precision, tf32)")
    words.add_argument("--benchmark", type=Path, action="append", default=[], metavar="FILE",
                       help="gpu_check.json of a card of your own, whose rates go first")
    words.add_argument("--gflops", type=float, help="1e9 operations a second that this machine sustains")
    words.add_argument("--costs", type=Path, default=networks.TABLE, help="default: config/costs.yaml")
    words.add_argument("--targets", action="store_true", help="only list what can be asked for by name")
    return words


@stage
def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    args = parser().parse_args(argv)
    if args.gflops is not None and args.gflops <= 0:
        raise OODError(f"--gflops: a number above 0 expected, found {args.gflops:g}")
    if not args.directory.is_dir():
        raise OODError(f"--directory: there is no folder {args.directory}")
    plan = setting.read(args.configfile, args.config)
    if args.targets:
        print("\n".join(f"{name}  {' '.join(files)}" for name, files in targets(plan).items()))
        return
    costs = networks.load(args.costs)
    for path in args.benchmark:
        costs = costs.measured(path, str(path))
    machine = args.on or ("cpu" if plan.config.device == "cpu" else "gpu")
    chosen = costs.machine(machine)
    if args.gflops:
        own = chosen.sustaining(args.gflops)
        costs = costs.model_copy(update={"machines": costs.machines | {machine: own}})
    jobs, wanted, due = asked(plan, args)
    pending = [job for job in wanted if due.outputs & {*job.outputs}] if due else absent(wanted, args.directory)
    reasons = why.summary(due.reasons, most=4) if due and due.reasons else ""
    estimator = Estimator(plan, costs, Measured(args.directory, paths.root(plan)), machine,
                          args.precision)
    print("\n".join(page(jobs, wanted, pending, estimator, args.directory, bool(args.target))))
    if reasons:
        print(f"\nWhat runs again, and why:\n{reasons}")


def asked(plan: Plan, args: argparse.Namespace) -> tuple[Jobs, list[Job], Due | None]:
    """All jobs, those behind the targets (or the page), and unless ``--quick`` what of them would run.

    Raises:
        OODError: a target that stands for nothing.
    """
    words, named = setting.words(args.configfile, args.config), targets(plan)
    for name in args.target:
        if name not in named and "/" not in name:
            raise unknown("target", name, named)
    if not args.target and not args.quick:
        jobs, due = dag.due(plan, words, args.directory)
        return jobs, jobs.page(), due
    jobs = dag.read(plan, words)
    files = [file for name in args.target for file in named.get(name, [name])]
    if not files:
        return jobs, jobs.page(), None
    part = jobs if all(map(jobs.makes, files)) else dag.read(plan, words, files)
    return jobs, part.behind(files), None if args.quick else dag.due(plan, words, args.directory, files)[1]


def absent(wanted: Iterable[Job], folder: Path) -> list[Job]:
    """Jobs one of whose outputs is not there."""
    return [job for job in wanted if there(job, folder) is None]


def page(jobs: Jobs, wanted: list[Job], pending: list[Job], estimator: Estimator, folder: Path,
         part: bool) -> list[str]:
    """The whole text, line by line."""
    plan, due = jobs.plan, set(pending)
    lines = [f"Plan of '{plan.config.variant}': {len(wanted)} jobs, of which {len(pending)} would run.", ""]
    groups = {paper: jobs.paper(paper) for paper in plan.papers}
    inside = set(wanted)
    groups = {name: found for name, group in groups.items() if (found := [job for job in group if job in inside])}
    rows = [_row(name, group, due, estimator, folder) for name, group in groups.items()]
    shared = _row("together", wanted, due, estimator, folder)
    lines += table(["", "networks", "epochs", "images seen", _unit(estimator),
                    "to run", "disk"], [*rows, shared])
    lines += ["What papers share is in each of their rows, and once in the last. Images seen: ID, each view, and "
              "outliers, forward and back. Epochs that trainings share count once, in each row."]
    lines += ["", *_stages(wanted, due, estimator, folder)]
    lines += ["", *_data(jobs, pending, folder)]
    return lines + ["", *_basis(wanted, estimator, part)]


def _unit(estimator: Estimator) -> str:
    """Of the hours."""
    card = estimator.costs.machine(estimator.machine).card
    return "hours" if estimator.machine == "cpu" else f"{card or 'GPU'}-hours"


def _row(name: str, group: list[Job], due: set[Job], estimator: Estimator, folder: Path) -> list[str]:
    sizes = [size for job in group if job.trains if (size := estimator.trained(job))]
    return [name, str(sum(job.kind == "models" for job in group)), f"{sum(s.epochs for s in sizes):,.0f}",
            f"{sum(s.images for s in sizes):,}", _time(group, estimator),
            _time([job for job in group if job in due], estimator), _space(group, estimator, folder)]


def _time(group: list[Job], estimator: Estimator) -> str:
    """Hours of the jobs that run a network."""
    seconds = [estimator.seconds(job)[0] for job in group if job.on_gpu]
    return hours(sum(s for s in seconds if s is not None)) + ("+?" if None in seconds else "")


def _space(group: list[Job], estimator: Estimator, folder: Path) -> str:
    """Bytes, as they are where the files are there."""
    sizes = [estimator.bytes(job) if (now := there(job, folder)) is None else now for job in group]
    return size(sum(b for b in sizes if b is not None)) + ("+?" if None in sizes else "")


def _stages(wanted: list[Job], due: set[Job], estimator: Estimator, folder: Path) -> list[str]:
    rows = []
    for rule in dict.fromkeys(job.rule for job in wanted):
        group = [job for job in wanted if job.rule == rule]
        run = [job for job in group if job in due]
        there_now = sum(there(job, folder) or 0 for job in group)
        rows.append([rule, str(len(group)), str(len(run)), _time(run, estimator) if group[0].on_gpu else "",
                     _space(group, estimator, folder), size(there_now)])
    return table(["stage", "jobs", "to run", "time", "disk", "there now"], rows)


def _data(jobs: Jobs, pending: list[Job], folder: Path) -> list[str]:
    """Downloads, and what must be brought."""
    plan = jobs.plan
    fetched = {job.name: plan.sources[job.name] for job in pending if job.kind == "archives"}
    loads = {} if plan.config.offline else {name: source for name, source in fetched.items() if not source.by_hand}
    total = sum(source.size or 0 for source in loads.values())
    blank = sum(source.size is None for source in loads.values())
    lines = [f"Downloads: {len(loads)} files, {size(total)}" + (f" and {blank} of unknown size" if blank else "")]
    lines += table(["  file", "bytes"], [[f"  {name}", f"{source.size:,}" if source.size else "not known"]
                                         for name, source in loads.items()]) if loads else []
    pairs = raw_splits(jobs.plan, ((job.rule, job.wildcards) for job in pending))
    recipes = [job.run.recipe for job in pending if job.rule == "import_weights"]
    missing = missing_data(plan, pairs, recipes)
    lines += ["", f"To bring by hand: {len(missing) or 'nothing'}", *(f"  {line.strip()}" for line in missing)]
    return lines + [f"Left out: {one}" for one in plan.left_out]


def _basis(wanted: list[Job], estimator: Estimator, part: bool) -> list[str]:
    machine = estimator.costs.machine(estimator.machine)
    counted, spent = Counter[str](), dict.fromkeys(get_args(Basis), 0.0)
    for job in wanted:
        if job.on_gpu:
            seconds, basis = estimator.seconds(job)
            counted[basis] += 1
            spent[basis] += seconds or 0
    names = ["measured", "other seeds", *(["benchmark", "sourced"] if machine.card else []), "assumed", "unknown"]
    said = {"measured": "measured here", "other seeds": "by their other seeds", "benchmark": "by our benchmark file",
            "sourced": "by a rate that others measured"}
    parts = [f"{counted[name]} {said.get(name, name)}" + (f" ({hours(spent[name])})" if machine.card else "")
             for name in names]
    lines = ["Estimates. Hours are those of jobs that run a network, one after the other: " + ", ".join(parts) + "."]
    if machine.card:
        lines += _rates(wanted, estimator)
    elif counted["assumed"]:
        lines += [f"Assumed: {machine.assumed['float32']:g} GFLOP/s sustained ({machine.about}), a backward pass "
                  f"{estimator.costs.backward:g} forward passes, a step at least {machine.step:g} s, a start "
                  f"{machine.start:g} s; what a method computes beside the network is not counted. Your own: --gflops, "
                  "--on a100 or another card, or --costs FILE like config/costs.yaml."]
    if estimator.uncounted:
        lines += [f"Nobody counted {', '.join(sorted(estimator.uncounted))}: uv run python -m "
                  "workflow_scripts.planning.count --configfile ... --write adds the rows to config/costs.yaml."]
    if estimator.assumed_images:
        lines += [f"Number of images assumed (config/costs.yaml): {', '.join(sorted(estimator.assumed_images))}."]
    return lines + (["Of other papers only what these targets need is in the table."] if part else [])


def _rates(wanted: list[Job], estimator: Estimator) -> list[str]:
    """What a card was taken to do with each network, where that was read, and what the training loop adds."""
    machine = estimator.costs.machine(estimator.machine)
    rows = sorted({(network, precision, f"{found.gflops / 1000:.1f}", f"{found.origin}: {found.source}")
                   for (network, _, precision), found in estimator.rates.items()})
    sources = list(dict.fromkeys(source for *_, source in rows))
    shown = [[f"  {network}", precision, rate, f"[{sources.index(source) + 1}]"]
             for network, precision, rate, source in rows]
    bare = estimator.changed(launched=False)
    total = sum(bare.seconds(job)[0] or 0 for job in wanted if job.on_gpu)
    return ["", f"Rates of {machine.about}:", *table(["  network", "precision", "TFLOP/s", "from"], shown),
            *(f"  [{number}] {source}" for number, source in enumerate(sources, start=1)), "",
            f"A backward pass counts as {estimator.costs.backward:g} forward passes, images/s are turned into "
            f"operations by that; a start takes {machine.start:g} s. A step takes at least what it took in the "
            f"workflow's own loop on the card of the benchmark file, else {machine.step:g} s (assumed). At the rates "
            f"alone, were that nothing: {hours(total)}."]


if __name__ == "__main__":
    main()
