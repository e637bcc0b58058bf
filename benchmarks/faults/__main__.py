"""Make faults happen, and write what came of them: see the package's docstring."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from benchmarks.faults import __doc__ as about
from benchmarks.faults import cluster, trainings, whole
from benchmarks.faults.scene import Row, Scene

ROOT = Path(__file__).resolve().parents[2]
PAGE, RECORD = ROOT / "docs" / "reliability.md", ROOT / "docs" / "reliability.json"
KINDS = {"kill": "kill -9 in each training, at random moments", "signal": "SIGTERM and SIGUSR1 in each training",
         "resume": "the kept progress of each training cut off", "files": "a store and a checkpoint cut off",
         "head": "the head process killed while its job lives on", "two": "two workflows at once",
         "disk": "a full disk",
         "slurm": "time limit, lost node, too little memory, killed head process on a real Slurm (Debian, root)"}
BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"


def table(record: dict) -> str:
    """The record as a Markdown table."""
    lines = ["| fault | where | times | progress taken up | lost |", "|---|---|--:|--:|---|"]
    for row in record["rows"]:
        lost = f"not tried: {row['left_out']}" if row["left_out"] else "; ".join(row["lost"]) or "nothing"
        lines.append(f"| {row['fault']} | {row['where']} | {row['times']} | {row['continued']} | {lost} |")
    return "\n".join([*lines, "", f"{record['machine']}, seed {record['seed']}."])


def fill(record: dict) -> None:
    """Put the table between the page's marks."""
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{table(record)}\n{END}{rest.split(END)[1]}", encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=about.splitlines()[0],
                                     formatter_class=argparse.RawDescriptionHelpFormatter,
                                     epilog="\n".join(f"{name:8} {text}" for name, text in KINDS.items()))
    parser.add_argument("--run", type=Path, default=ROOT, help="checkout with the finished default run (default: this)")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND", help="see below")
    parser.add_argument("--trainings", nargs="+", choices=trainings.TRAININGS, default=list(trainings.TRAININGS),
                        metavar="NAME", help="which trainings; left out: one of each method")
    parser.add_argument("--moments", type=int, default=3, help="kill -9 of each training (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", type=Path, default=Path("faults.json"), help="record to write (default: %(default)s)")
    parser.add_argument("--write", action="store_true", help="also put the rows into docs/, "
                        "in place of those of the same fault and place")
    args = parser.parse_args(argv)
    if not (args.run / "results" / "small" / "report.html").is_file():
        raise SystemExit(f"{args.run} holds no finished default run; first: uv run snakemake --cores all")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        scene = Scene(args.run, Path(folder))
        wanted = set(args.only)
        for group in (whole.faults(scene, wanted),
                      trainings.faults(scene, wanted, args.trainings, args.moments, args.seed)
                      if wanted & {"kill", "signal", "resume"} else (),
                      cluster.faults() if "slurm" in wanted else ()):
            for row in group:
                rows.append(row)
                print(f"{row.fault:52} {row.where:26} {row.times} x  " + (row.left_out or "; ".join(row.lost)
                                                                         or "nothing lost"), flush=True)
    record = {"machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
              "seed": args.seed, "rows": [asdict(row) for row in rows]}
    args.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if args.write:
        kept = json.loads(RECORD.read_text(encoding="utf-8"))["rows"] if RECORD.exists() else []
        again = {(row["fault"], row["where"]) for row in record["rows"]}
        record["rows"] = [row for row in kept if (row["fault"], row["where"]) not in again] + record["rows"]
        RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        fill(record)
    return int(any(row.lost for row in rows))


if __name__ == "__main__":
    sys.exit(main())
