"""Tables of one paper: metrics files of all its runs -> a tidy CSV over seeds, Markdown, LaTeX, published against ours.

Command: ``python -m workflow_scripts.stages.make_tables --config JSON --csv tables/posthoc.csv --md tables/posthoc.md
--tex tables/posthoc.tex --published published/posthoc.csv --intervals intervals/posthoc.csv``
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from workflow_scripts.core.errors import stage
from workflow_scripts.core.files import atomic
from workflow_scripts.core.section import stage_parser
from workflow_scripts.data.images.store import open_store
from workflow_scripts.reporting import comparison, intervals, layout, printing, published, results, tuned
from workflow_scripts.reporting.inputs import TrainImages
from workflow_scripts.reporting.statistics import metric
from workflow_scripts.stages.sections.make_tables import MakeTables


def lay_out(section: MakeTables, found: pd.DataFrame, numbers: pd.DataFrame,
            paired: pd.DataFrame | None = None) -> list[layout.Table]:
    """The tables of a paper: for each ID set and network by its own rules and by the strict ones, with what is bold by
    ``paired``, if given; corrected against as released; published numbers."""
    shown = tuned.main(found, section.tuned)
    return [*layout.tables(shown, section.metrics, section.id_metrics, section.names, section.countings,
                           intervals.tests(paired, section.over), section.families, section.listed),
            *tuned.laid_out(found, section.tuned, section.names, section.families),
            *comparison.laid_out(comparison.compared(shown, section.compare), section.names),
            *([published.laid_out(numbers)] if published.compares(numbers) else [])]


def incomplete(sets: Mapping[str, TrainImages]) -> dict[str, str]:
    """ID sets that have other train images than the complete set -> what is the matter.

    A store that is not there says nothing: a page of an unfinished run is made without it.

    Raises:
        OODError: a store cannot be read.
    """
    found = {}
    for name, images in sets.items():
        if Path(images.store).is_file():
            with open_store(images.store) as file:
                count = len(file["labels"])
            if count != images.count:
                found[name] = f"dataset {name} has {count:,} train images, complete {images.count:,}"
    return found


def markdown(section: MakeTables, found: pd.DataFrame, numbers: pd.DataFrame,
             paired: pd.DataFrame | None = None) -> str:
    """The Markdown page of a paper: conventions, a table per ID set and network, what is missing."""
    lines = [f"## {section.title}", "",
             "In percent unless the heading says otherwise; mean ± sample standard deviation over seeds; averages are "
             "unweighted over sets, per seed first.", ""]
    shown = [m for c in section.countings for m in (*c.names, *c.id_metrics)]
    lines += [f"- {metric(m).label}: {metric(m).means}." for m in dict.fromkeys(
        [*shown, *section.metrics, *section.id_metrics])] + [""]
    lines += map(printing.markdown, [*lay_out(section, found, numbers, paired),
                                     *intervals.laid_out(paired, section.names)])
    if len(numbers) and not published.compares(numbers):
        lines += ["### Published numbers", "", published.summary(numbers), ""]
    if found.empty:
        lines += ["No run is listed, so there is nothing to show.", ""]
    if missing := results.gaps(found):
        lines += ["### Missing", "", *(f"- {line}" for line in missing), ""]
    return "\n".join(lines)


@stage
def main(argv: list[str] | None = None) -> None:
    """Entry point of the stage."""
    parser = stage_parser(__spec__, __doc__, MakeTables)
    parser.add_argument("--csv", required=True, help="tidy table to write")
    parser.add_argument("--md", required=True, help="Markdown to write")
    parser.add_argument("--tex", help="LaTeX to write")
    parser.add_argument("--published", help="CSV of the paper's numbers against ours to write")
    parser.add_argument("--intervals", help="CSV of paired intervals; without it bold rests on seeds alone")
    args = parser.parse_args(argv)
    section: MakeTables = args.config
    counted = [name for counting in section.countings for name in counting.names]
    counted_id = [name for counting in section.countings for name in counting.id_metrics]
    found = results.collect(section.runs, [*section.metrics, *counted], [*section.id_metrics, *counted_id])
    numbers = published.numbers(found, section.published, incomplete(section.train_images))
    paired = intervals.read(args.intervals) if args.intervals else None
    pages = {args.md: markdown(section, found, numbers, paired),
             args.tex: printing.latex_page(section.title, lay_out(section, found, numbers, paired))}
    results.write(args.csv, found)
    if args.published:
        results.write_csv(args.published, numbers)
    for path, page in pages.items():
        if path:
            with atomic(path) as partial:
                partial.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
