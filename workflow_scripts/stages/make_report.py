"""The results page: tables, figures, dataset cards and manifests of a run -> one self-contained ``report.html``.

Command: ``python -m workflow_scripts.stages.make_report --config JSON --out report.html --overview overview``

A file that is not there is named on the page as missing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from workflow_scripts.core.errors import stage
from workflow_scripts.core.files import atomic
from workflow_scripts.core.section import stage_parser
from workflow_scripts.reporting import overview, page, printing
from workflow_scripts.stages.sections.make_report import MakeReport

TEMPLATE = Path(page.__file__).parent


def render(section: MakeReport, shown: dict[str, Any] | None = None) -> str:
    """The page as text; the same section and files give the same text. ``shown``: its context, if made already."""
    environment = Environment(loader=FileSystemLoader(TEMPLATE), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)
    environment.filters["name"] = lambda key: section.names.get(key, key)
    environment.globals["groups"] = printing.groups
    parts = {key: Markup((TEMPLATE / f"page.{key}").read_text(encoding="utf-8")) for key in ("css", "js")}
    return environment.get_template("page.html.j2").render(**(shown or page.context(section)), **parts)


@stage
def main(argv: list[str] | None = None) -> None:
    """Entry point of the stage."""
    parser = stage_parser(__spec__, __doc__, MakeReport)
    parser.add_argument("--out", required=True, type=Path, help="page to write")
    parser.add_argument("--overview", type=Path, help="where to write the overview table, as .csv, .md and .tex")
    parser.add_argument("--newest", type=Path, help="a second place for it, that always holds the newest page")
    args = parser.parse_args(argv)
    shown = page.context(args.config)
    text = render(args.config, shown)
    written = {args.newest: text, args.out: text}
    if args.overview:
        table = overview.laid_out(shown["rows"], args.config.names)
        overview.write(args.overview.with_suffix(".csv"), shown["rows"])
        written |= {args.overview.with_suffix(".md"): printing.markdown(table),
                    args.overview.with_suffix(".tex"): printing.latex_page("Overview", [table])}
    for target in filter(None, written):
        with atomic(target) as partial:
            partial.write_text(written[target], encoding="utf-8")


if __name__ == "__main__":
    main()
