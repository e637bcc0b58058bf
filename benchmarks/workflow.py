"""What the workflow itself costs: time of a finished run outside its stages, runs that do nothing, dry runs.

    python -m benchmarks.workflow [--results results/small] [--repeats 3] [--parts overhead noop paper]

Overhead: 1 - (sum over jobs of the seconds inside their stages) / (wall time x cores). A job's log ends with the
seconds inside its stage, after Python's start and the imports; wall time, from the start of Snakemake's log to its last
line, and cores are those of the run that wrote the results last. Shares of it: start and imports of the jobs (their
times by Snakemake's benchmark files, less the seconds inside), and cores without a job. No-op: `snakemake --cores all`
when nothing is to be done. Paper: `snakemake -n` of config/paper.yaml. Targets: 35 %, 5 s, 10 s.
"""

from __future__ import annotations

import argparse
import csv
import re
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from benchmarks.common import ROOT, Figure, Report

OVERHEAD, NOOP, DRY = 35.0, 5.0, 10.0
_DONE = re.compile(r"^done in ([\d.]+) s$", re.MULTILINE)
_NAME = "%Y-%m-%dT%H%M%S.%f"


@dataclass(frozen=True)
class Jobs:
    """Seconds of a run's jobs."""

    inside: float
    """Inside stages."""
    whole: float
    """With Python's start and the imports."""
    count: int
    without: tuple[str, ...]
    """Logs that do not say how long their stage took."""


def jobs(results: Path, since: float) -> Jobs:
    """The jobs of a run that began at ``since`` (seconds since the epoch), from their logs and benchmark files."""
    inside = whole = 0.0
    count, without = 0, []
    for log in sorted((results / "logs").rglob("*.log")):
        if log.stat().st_mtime < since:
            continue
        count += 1
        found = _DONE.findall(log.read_text(encoding="utf-8", errors="replace")[-2000:])
        if not found:
            without.append(str(log.relative_to(results)))
            continue
        seconds = float(found[-1])
        inside += seconds
        measured = results / "benchmarks" / log.relative_to(results / "logs").with_suffix(".tsv")
        whole += max(seconds, _seconds(measured)) if measured.is_file() else seconds
    return Jobs(inside, whole, count, tuple(without))


def _seconds(path: Path) -> float:
    with open(path, newline="", encoding="utf-8") as file:
        return max(float(row["s"]) for row in csv.DictReader(file, delimiter="\t"))


def last_run(folder: Path) -> tuple[float, float, int]:
    """(beginning, wall seconds, cores) of the newest of Snakemake's logs in which jobs ran to the end.

    Raises:
        FileNotFoundError: there is none.
    """
    for log in sorted((folder / ".snakemake" / "log").glob("*.snakemake.log"), reverse=True):
        text = log.read_text(encoding="utf-8", errors="replace")
        cores = re.search(r"Provided cores: (\d+)", text)
        if cores and "(100%) done" in text:
            begun = datetime.strptime(log.name.removesuffix(".snakemake.log"), _NAME).timestamp()
            return begun, log.stat().st_mtime - begun, int(cores[1])
    raise FileNotFoundError(f"{folder}: no log of a finished run; run `uv run snakemake --cores all` first")


def overhead(results: Path, report: Report, folder: Path = ROOT) -> None:
    begun, wall, cores = last_run(folder)
    found = jobs(results, begun)
    if len(found.without) > 0.05 * found.count:
        raise SystemExit(f"{len(found.without)} of {found.count} logs do not end with 'done in ... s' (first: "
                         f"{found.without[0]}); they are of older code: run again from the beginning")
    total = wall * cores
    if found.whole > total:
        raise SystemExit(f"jobs took {found.whole:,.0f} s, the last run {total:,.0f} s of its cores: the "
                         f"newest log of Snakemake is not that of {results}")
    report.add(Figure("overhead of the last run", 100 * (1 - found.inside / total), "%", OVERHEAD, True, found.count,
                      {"wall, s": wall, "cores": cores, "inside, s": found.inside}))
    starts = found.whole - found.inside
    report.add(Figure("of it start and imports of jobs", 100 * starts / total, "%", n=found.count))
    report.add(Figure("of it cores without a job", 100 * (1 - found.whole / total), "%", n=found.count))
    report.add(Figure("wall time", wall, f"s on {cores} cores"))


def timed(report: Report, name: str, target: float, repeats: int, *arguments: str, expect: str) -> None:
    """Seconds of a Snakemake command that runs no job, median.

    Raises:
        SystemExit: it fails, or says something else than expected.
    """
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "snakemake", *arguments], cwd=ROOT, capture_output=True, text=True)
        seconds.append(time.perf_counter() - started)
        if done.returncode or expect not in done.stdout + done.stderr:
            raise SystemExit(f"snakemake {' '.join(arguments)}: expected '{expect}', found:\n{done.stderr[-1000:]}")
    report.add(Figure(name, statistics.median(seconds), "s", target, True, repeats, {"least": min(seconds)}))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.workflow", description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=ROOT / "results" / "small")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--parts", nargs="+", choices=["overhead", "noop", "paper"],
                        default=["overhead", "noop", "paper"])
    args = parser.parse_args()
    report = Report("workflow", "snakemake")
    if "overhead" in args.parts:
        overhead(args.results, report)
    if "noop" in args.parts:
        timed(report, "a run with nothing to do", NOOP, args.repeats, "--cores", "all", expect="Nothing to be done")
    if "paper" in args.parts:
        timed(report, "snakemake -n of all papers", DRY, args.repeats, "-n", "--cores", "2", "--quiet", "rules", "all",
              "--configfile", "config/paper.yaml", expect="")
    report.write()


if __name__ == "__main__":
    main()
