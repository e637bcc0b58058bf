"""The two tables of docs/cluster.md that are counted from the configurations: costs of papers, sizes of trainings.

    python -m workflow_scripts.planning.cluster_page            write them
    python -m workflow_scripts.planning.cluster_page --check    exit 1 if they differ
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from workflow_scripts.core.digest import ROOT
from workflow_scripts.core.errors import OODError, command, stage
from workflow_scripts.core.files import atomic
from workflow_scripts.core.yaml_files import read_yaml
from workflow_scripts.planning.setting import read
from workflow_scripts.work import starts

TARGET = ROOT / "docs" / "cluster.md"
TOGETHER = "paper"  # the configuration that includes the others


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
    environment = {key: value for key, value in os.environ.items() if key != "OOD_DATA"}
    with tempfile.TemporaryDirectory() as nowhere:
        done = subprocess.run([sys.executable, "-m", "workflow_scripts.plan", "--quick", "--configfile",
                               str(ROOT / "config" / f"{TOGETHER}.yaml"), "--directory", nowhere],
                              cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OODError(f"python -m workflow_scripts.plan failed: {done.stderr.strip()}")
    table = done.stdout.split("\n\n")[1]
    return ["```", *(line.rstrip() for line in table.splitlines()), "```"]


def text() -> str:
    """The page with its tables as they should be."""
    page = TARGET.read_text(encoding="utf-8")
    for name, rows in (("costs", costs()), ("trainings", trainings())):
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
        if begin not in page or end not in page:
            raise OODError(f"{TARGET.relative_to(ROOT)}: the marks {begin.strip()} and {end} are not there")
        before, rest = page.split(begin)
        page = before + begin + "\n".join(rows) + "\n" + end + rest.split(end)[1]
    return page


@stage
def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    parser = command(__spec__, __doc__)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    args = parser.parse_args(argv)
    page = text()
    if page == TARGET.read_text(encoding="utf-8"):
        return
    if args.check:
        raise OODError(f"{TARGET.relative_to(ROOT)} is out of date; run: uv run python -m {__spec__.name}")
    with atomic(TARGET) as partial:
        partial.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
