"""What a run says in the terminal at its end: the headline table, or which jobs failed and why."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from workflow_scripts.reporting import headline
from workflow_scripts.wiring import paths
from workflow_scripts.work.plan import Plan

LINES, SHOWN = 8, 3
"""Last lines of a log, and failed jobs, that are shown."""


@dataclass(frozen=True)
class Failure:
    """A failed job: its rule, what it should have made, its log."""

    rule: str
    output: str
    log: str


def failures(text: str) -> list[Failure]:
    """The failed jobs in Snakemake's own log, each once; those that ended well without their outputs come last."""
    found: dict[Failure, None] = {}
    for block in re.split(r"^(?=Error in rule )", text, flags=re.MULTILINE)[1:]:
        rule = re.match(r"Error in rule ([^:\s]+)", block)[1]
        fields = dict(re.findall(r"^    (output|log): (.*?)(?: \(check log file.*)?$", block, re.MULTILINE)[:2])
        found[Failure(rule, fields.get("output", ""), fields.get("log", ""))] = None
    without = r"^MissingOutputException in rule (\S+) .*\n.*\n((?:.+ \(missing locally.*\n)+)"
    for rule, listed in re.findall(without, text, re.MULTILINE):
        found[Failure(rule, ", ".join(re.findall(r"^(.+?) \(missing locally", listed, re.MULTILINE)), "")] = None
    return list(found)


def read(logs: Sequence[str]) -> str:
    """Snakemake's own logs, one after the other."""
    return "\n".join(Path(log).read_text(encoding="utf-8", errors="replace") for log in logs if Path(log).is_file())


def failure(logs: Sequence[str]) -> str:
    """The failed jobs with the last lines of their logs, and Snakemake's log."""
    failed = failures(read(logs))
    lines = [""]
    for job in failed[:SHOWN]:
        first, *others = job.output.split(", ")
        more = f" and {len(others)} more" if others else ""
        lines.append(f"failed: {job.rule}, which makes {first or 'nothing'}{more}")
        path = Path(job.log) if job.log else None
        if path and path.is_file():
            last = path.read_text(encoding="utf-8", errors="replace").rstrip().splitlines()[-LINES:]
            lines += [f"    {line}" for line in last or ["(its log is empty)"]]
        lines.append(f"    log: {job.log or 'none'}")
    if len(failed) > SHOWN:
        lines.append(f"and {len(failed) - SHOWN} more failed jobs")
    return "\n".join([*lines, f"log of the run: {', '.join(map(str, logs))}", ""])


def success(logs: Sequence[str], root: Path, names: Mapping[str, str]) -> str:
    """The headline table and the page's address, where this run made them; else nothing."""
    page, table = root / "report.html", root / "overview.csv"
    if not page.is_file():
        return ""
    made = table.is_file() and "(Rule: make_report)" in read(logs)
    head = ""
    if made:
        head = ("\nPercent, mean ± standard deviation over seeds; mean of all OOD sets. FPR95 (ID+): lower is better.\n"
                f"{headline.terminal(table, dict(names))}\n\n")
    return f"{head}results page: {page.resolve().as_uri()}\n"


def partial_page(plan: Plan, write: Callable[[Plan], Path]) -> str:
    """Make the page of what there is with ``write`` (:func:`workflow_scripts.partial_page.write`), and say where;
    nothing where not even one network has been measured."""
    if not any(Path(paths.root(plan), "metrics").rglob("*.csv")):
        return ""
    try:
        return f"page of what there is: {write(plan).resolve().as_uri()}\n"
    except (Exception, SystemExit) as error:  # the failure above is what matters
        return "" if isinstance(error, SystemExit) else f"no page of what there is: {error}\n"
