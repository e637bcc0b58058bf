"""The tables of docs/cluster.md that are counted: costs of papers, hours on named cards, rates, sizes of trainings.

    python -m workflow_scripts.planning.cluster_page            write them
    python -m workflow_scripts.planning.cluster_page --check    exit 1 if they differ
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workflow_scripts.core.digest import ROOT
from workflow_scripts.core.errors import OODError, stage
from workflow_scripts.core.generated import asked_to_check, keep
from workflow_scripts.core.yaml_files import read_yaml
from workflow_scripts.planning import dag, networks
from workflow_scripts.planning.dag import Job
from workflow_scripts.planning.estimate import Estimator
from workflow_scripts.planning.machines import Precision
from workflow_scripts.planning.measured import Measured
from workflow_scripts.planning.networks import Costs
from workflow_scripts.planning.setting import read, words
from workflow_scripts.work import starts
from workflow_scripts.work.plan import Plan

TARGET = ROOT / "docs" / "cluster.md"
TOGETHER = "paper"  # the configuration that includes the others
LEAN = "paper_lean"  # the same with fewer seeds
COLUMNS: tuple[tuple[str, Precision], ...] = (
    ("a100", "float32"), ("a100", "tf32"), ("a100", "bfloat16"), ("h100", "float32"), ("h100", "tf32"),
    ("h100", "bfloat16"), ("h200", "float32"), ("h200", "bfloat16"))
NAMES: dict[Precision, str] = {"float32": "float32", "tf32": "TF32", "bfloat16": "bfloat16"}


def configurations() -> list[Path]:
    """The papers' configurations at full size in the order of the one that includes them all, which is the last."""
    whole = ROOT / "config" / f"{TOGETHER}.yaml"
    return [*(ROOT / name for name in included(whole)), whole]


def included(path: Path) -> list[str]:
    """Configurations of papers that a file includes, without those of shared lists."""
    names = read_yaml(path).get("include", [])
    return [name for name in names if "\nvariant:" in (ROOT / name).read_text(encoding="utf-8")]


def trainings() -> list[str]:
    """The table of networks, trainings, epochs and scores."""
    rows = ["| configuration | networks | trained here | their epochs | shared ones counted once | scores |",
            "|---|--:|--:|--:|--:|--:|"]
    for path in configurations():
        plan = read(path)
        runs, shared = plan.runs.values(), starts.starts(plan)
        twice = sum(start.epochs for start in shared.values()) - sum(start.epochs for start in set(shared.values()))
        trained = [run.recipe.training for run in runs if run.recipe.checkpoint is None]
        epochs = sum(training.epochs or 0 for training in trained)
        scores = sum(len(run.scores) for run in runs)
        rows.append(f"| `config/{path.name}` | {len(runs)} | {len(trained)} "
                    f"| {f'{epochs:,}' if epochs else 'in steps'} | {f'{epochs - twice:,}' if epochs else ''} "
                    f"| {scores:,} |")
    return rows


def costs() -> list[str]:
    """The table of `plan`, of a machine without data or results."""
    with tempfile.TemporaryDirectory() as nowhere:
        done = subprocess.run([sys.executable, "-m", "workflow_scripts.plan", "--quick", "--configfile",
                               str(ROOT / "config" / f"{TOGETHER}.yaml"), "--directory", nowhere],
                              cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OODError(f"python -m workflow_scripts.plan failed: {done.stderr.strip()}")
    table = done.stdout.split("\n\n")[1]
    return ["```", *(line.rstrip() for line in table.splitlines()), "```"]


def hours() -> list[str]:
    """Hours of the papers on each card, with first epochs trained once and, in brackets, by each training."""
    table = networks.load()
    cells = [f"{table.machine(name).card} {NAMES[precision]}" for name, precision in COLUMNS]
    rows = [f"| | {' | '.join(cells)} |", f"|---|{'--:|' * len(cells)}"]
    whole, lean = configurations()[-1], ROOT / "config" / f"{LEAN}.yaml"
    jobs, few = (dag.read(read(path), words(path)) for path in (whole, lean))
    guesses = _guesses(jobs.plan, table)
    rows += [_hours(paper, jobs.paper(paper), guesses) for paper in jobs.plan.papers]
    rows += [_hours("together", jobs.page(), guesses),
             _hours("together, at the rates alone", jobs.page(), _guesses(jobs.plan, table, launched=False)),
             _hours(f"together, `config/{LEAN}.yaml`", few.page(), _guesses(few.plan, table))]
    return rows


def _guesses(plan: Plan, table: Costs, launched: bool = True) -> list[tuple[Estimator, Estimator]]:
    """For each column an estimate that trains shared epochs once, and one that does not."""
    once = [Estimator(plan, table, Measured(Path("nowhere"), ""), machine, precision, launched=launched)
            for machine, precision in COLUMNS]
    return [(guess, guess.changed(shared=False)) for guess in once]


def _hours(name: str, group: list[Job], guesses: list[tuple[Estimator, Estimator]]) -> str:
    """A row of the table of hours."""
    cells = []
    for pair in guesses:
        once, each = (f"{sum(guess.seconds(job)[0] or 0 for job in group if job.on_gpu) / 3600:,.0f}"
                      for guess in pair)
        cells.append(once if once == each else f"{once} ({each})")
    return f"| {name} | {' | '.join(cells)} |"


def rates() -> list[str]:
    """The table of the rates that others measured, and what is assumed where there is none."""
    table = networks.load()
    rows = ["| card | networks | precision | images/s | TFLOP/s | source |", "|---|---|---|--:|--:|---|"]
    for machine in (found for found in table.machines.values() if found.card):
        for rate in machine.rates:
            images = f"{rate.images:,.0f}" if rate.images else ""
            rows.append(f"| {machine.card} | {rate.kind} | {NAMES[rate.precision]} | {images} "
                        f"| {rate.sustained(table.backward) / 1000:.1f} | {rate.source} |")
        for precision, gflops in machine.assumed.items():
            rows.append(f"| {machine.card} | all others | {NAMES[precision]} |  | {gflops / 1000:.1f} "
                        f"| assumed: {machine.because} |")
    return rows


@contextmanager
def without_data() -> Iterator[None]:
    """The environment without the folder of raw data, so that the tables are those of a machine that has none."""
    folder = os.environ.pop("OOD_DATA", None)
    try:
        yield
    finally:
        if folder is not None:
            os.environ["OOD_DATA"] = folder


def text() -> str:
    """The page with its tables as they should be."""
    page = TARGET.read_text(encoding="utf-8")
    for name, rows in (("costs", costs()), ("hours", hours()), ("rates", rates()), ("trainings", trainings())):
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
        if begin not in page or end not in page:
            raise OODError(f"{TARGET.relative_to(ROOT)}: the marks {begin.strip()} and {end} are not there")
        before, rest = page.split(begin)
        page = before + begin + "\n".join(rows) + "\n" + end + rest.split(end)[1]
    return page


@stage
def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    check = asked_to_check(__spec__, __doc__, argv)
    with without_data():
        page = text()
    keep(TARGET, page, __spec__, check)


if __name__ == "__main__":
    main()
