"""The page of what there is: from an unfinished or failed run, whatever metrics, figures and cards it has.

    uv run python -m workflow_scripts.partial_page                                    the default run
    uv run python -m workflow_scripts.partial_page --configfile config/goe.yaml

Writes ``results/{variant}/partial/report.html`` and the tables behind it. What has not run is said there, never 0. No
job of the workflow reads these files.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from types import SimpleNamespace

from workflow_scripts.core.commands import described
from workflow_scripts.core.errors import OODError, stage
from workflow_scripts.planning import setting
from workflow_scripts.stages import make_report as report
from workflow_scripts.stages import make_tables as tables
from workflow_scripts.wiring import paths, reports
from workflow_scripts.work.plan import Plan


def write(plan: Plan) -> Path:
    """The page of a plan's results as far as they are; returns its path."""
    folder = Path(paths.root(plan)) / "partial"
    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads(reports.report_section(plan))
    for paper in config["papers"]:
        section = reports.table_section(plan, SimpleNamespace(paper=paper["name"]))
        written = folder / f"{paper['name']}.json"  # longer than a command line may be
        written.write_text(section, encoding="utf-8")
        files = {kind: str(folder / f"{paper['name']}.{kind}") for kind in ("csv", "md", "tex")}
        files["published"] = str(folder / f"{paper['name']}.published.csv")
        read = {"intervals": paper["intervals"]} if Path(paper["intervals"]).is_file() else {}
        tables.main(["--config", str(written),
                     *(word for kind, path in (files | read).items() for word in (f"--{kind}", path))])
        paper |= files
    written = folder / "report.json"
    written.write_text(json.dumps(config), encoding="utf-8")
    report.main(["--config", str(written), "--out", str(folder / "report.html"),
                 "--overview", str(folder / "overview")])
    return folder / "report.html"


def parser() -> argparse.ArgumentParser:
    words = described(__spec__, __doc__)
    setting.add(words)
    return words


@stage
def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    args = parser().parse_args(argv)
    plan = setting.read(args.configfile, args.config)
    if not args.directory.is_dir():
        raise OODError(f"--directory: there is no folder {args.directory}")
    os.chdir(args.directory)  # where the paths of results begin
    print(f"page of what there is: {write(plan).resolve().as_uri()}")


if __name__ == "__main__":
    main()
