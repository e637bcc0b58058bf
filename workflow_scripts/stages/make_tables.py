"""Tables of one paper: metrics files of all its runs -> a tidy CSV over seeds, Markdown, LaTeX, published against ours.

Command: ``python -m workflow_scripts.stages.make_tables --config JSON --csv tables/house.csv --md tables/house.md
--tex tables/house.tex --published published/house.csv``

Config keys: ``paper``, ``title``, ``runs`` (each ``id``, ``network``, ``recipe``, ``label``, ``seed``, ``scores``,
``groups`` {group: [set, ...]}, ``metrics`` = path of its metrics file, null where it has not run); optional ``names``
(printed names), ``metrics`` and ``id_metrics`` (what the Markdown shows, default FPR95, AUROC and accuracy),
``compare`` (see :mod:`workflow_scripts.reporting.comparison`) and ``published`` (numbers of the paper, see
:mod:`workflow_scripts.reporting.published`).
"""

from __future__ import annotations

from workflow_scripts.core.errors import command, stage
from workflow_scripts.core.files import atomic
from workflow_scripts.reporting import comparison, latex, layout, published, results
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
    lines += published.markdown(published.numbers(rows, config.get("published", ())))
    if not rows:
        lines += ["No run is listed, so there is nothing to show.", ""]
    missing = results.gaps(rows)
    if missing:
        lines += ["### Missing", "", *(f"- {line}" for line in missing), ""]
    return "\n".join(lines)


def tex(config: dict, rows: list[results.Result]) -> str:
    """The same tables in LaTeX."""
    names = config.get("names", {})
    parts = [latex.results(table, names) for table in layout.tables(
        rows, config.get("metrics", results.DEFAULT_METRICS), config.get("id_metrics", results.DEFAULT_ID_METRICS))]
    pairs = comparison.compared(rows, config.get("compare"))
    parts += [latex.compared(pairs, names)] if pairs else []
    numbers = published.numbers(rows, config.get("published", ()))
    parts += [latex.reference(numbers)] if any(n.difference is not None for n in numbers) else []
    return latex.page(need(config, "title", str, "config"), parts)


@stage
def main(argv: list[str] | None = None) -> None:
    """Entry point of the stage."""
    parser = command(__spec__, __doc__)
    parser.add_argument("--config", required=True, help="JSON text, or the path of a JSON file")
    parser.add_argument("--csv", required=True, help="tidy table to write")
    parser.add_argument("--md", required=True, help="Markdown to write")
    parser.add_argument("--tex", help="LaTeX to write")
    parser.add_argument("--published", help="CSV of the paper's numbers against ours to write")
    args = parser.parse_args(argv)
    config = read_config(args.config)
    rows = results.collect(config)
    pages = {args.md: markdown(config, rows), args.tex: tex(config, rows)}
    results.write_csv(args.csv, rows)
    if args.published:
        published.write_csv(args.published, published.numbers(rows, config.get("published", ())))
    for path, page in pages.items():
        if path:
            with atomic(path) as partial:
                partial.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
