"""Tables of one paper: metrics files of all its runs -> a tidy CSV over seeds and a readable Markdown.

Command: ``python -m workflow_scripts.tables --config JSON --csv tables/house.csv --md tables/house.md``

Config keys: ``paper``, ``title``, ``runs`` (each ``id``, ``network``, ``recipe``, ``label``, ``seed``, ``scores``,
``groups`` {group: [set, ...]}, ``metrics`` = path of its metrics file, null where it has not run); optional ``names``
(printed names), ``metrics`` and ``id_metrics`` (what the Markdown shows, default FPR95, AUROC and accuracy), and
``compare`` (see :mod:`workflow_scripts.reporting.comparison`).
"""

from __future__ import annotations

import argparse

from workflow_scripts.errors import stage
from workflow_scripts.files import atomic
from workflow_scripts.reporting import comparison, layout, results
from workflow_scripts.reporting.inputs import need, read_config
from workflow_scripts.reporting.statistics import metric


def markdown(config: dict, rows: list[results.Result]) -> str:
    """The Markdown page of a paper: conventions, a table per ID set and network, what is missing."""
    metrics = config.get("metrics", results.DEFAULT_METRICS)
    id_metrics = config.get("id_metrics", results.DEFAULT_ID_METRICS)
    names = config.get("names", {})
    lines = [f"## {need(config, 'title', str, 'config')}", "",
             "In percent unless the heading says otherwise; mean ± sample standard deviation over seeds; averages are "
             "unweighted over sets, per seed first.", ""]
    lines += [f"- {metric(m).label}: {metric(m).means}." for m in (*metrics, *id_metrics)] + [""]
    lines += [layout.markdown(table, names) for table in layout.tables(rows, metrics, id_metrics)]
    lines += comparison.markdown(comparison.compared(rows, config.get("compare")), names)
    if not rows:
        lines += ["No run is listed, so there is nothing to show.", ""]
    missing = results.gaps(rows)
    if missing:
        lines += ["### Missing", "", *(f"- {line}" for line in missing), ""]
    return "\n".join(lines)


@stage
def main(argv: list[str] | None = None) -> None:
    """Entry point of the stage."""
    parser = argparse.ArgumentParser(prog="python -m workflow_scripts.tables", description=__doc__.split("\n")[0])
    parser.add_argument("--config", required=True, help="JSON text, or the path of a JSON file")
    parser.add_argument("--csv", required=True, help="tidy table to write")
    parser.add_argument("--md", required=True, help="Markdown to write")
    args = parser.parse_args(argv)
    config = read_config(args.config)
    rows = results.collect(config)
    page = markdown(config, rows)
    results.write_csv(args.csv, rows)
    with atomic(args.md) as partial:
        partial.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
