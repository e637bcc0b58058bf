"""The results page: tables, figures, dataset cards and manifests of a run -> one self-contained ``report.html``.

Command: ``python -m workflow_scripts.stages.make_report --config JSON --out report.html --overview overview``

Config keys: ``variant``, ``title``, ``papers`` (each ``name``, ``title``, ``about``, ``reference``, ``headline``,
``csv``, ``md``, ``tex``, ``published``, ``figures``, ``manifest``); optional ``small`` (a run not comparable with the
papers), ``about`` (opening text), ``cards`` (what the cards stage wrote), ``notes`` {set: why a score can fall below
chance on it}, ``names`` {name: printed name}. A file that is not there is named on the page as missing.
"""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from workflow_scripts.core.errors import command, stage
from workflow_scripts.core.files import atomic
from workflow_scripts.reporting import overview, page
from workflow_scripts.reporting.inputs import read_config

TEMPLATE = Path(page.__file__).parent


def render(config: dict, shown: dict | None = None) -> str:
    """The page as text; the same config and files give the same text. ``shown``: its context, if made already."""
    environment = Environment(loader=FileSystemLoader(TEMPLATE), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)
    environment.filters["name"] = lambda key: config.get("names", {}).get(key, key)
    parts = {key: Markup((TEMPLATE / f"page.{key}").read_text(encoding="utf-8")) for key in ("css", "js")}
    return environment.get_template("page.html.j2").render(**(shown or page.context(config)), **parts)


@stage
def main(argv: list[str] | None = None) -> None:
    """Entry point of the stage."""
    parser = command(__spec__, __doc__)
    parser.add_argument("--config", required=True, help="JSON text, or the path of a JSON file")
    parser.add_argument("--out", required=True, type=Path, help="page to write")
    parser.add_argument("--overview", type=Path, help="where to write the overview table, as .csv, .md and .tex")
    parser.add_argument("--newest", type=Path, help="a second place for it, that always holds the newest page")
    args = parser.parse_args(argv)
    config = read_config(args.config)
    shown = page.context(config)
    text = render(config, shown)
    written = {args.newest: text, args.out: text}
    if args.overview:
        rows, names = shown["rows"], config.get("names", {})
        overview.write_csv(args.overview.with_suffix(".csv"), rows)
        written |= {args.overview.with_suffix(".md"): overview.markdown(rows, names),
                    args.overview.with_suffix(".tex"): overview.tex(rows, names)}
    for target in filter(None, written):
        with atomic(target) as partial:
            partial.write_text(written[target], encoding="utf-8")


if __name__ == "__main__":
    main()
