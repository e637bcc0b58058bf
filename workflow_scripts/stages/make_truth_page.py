"""Published numbers beside ours: the tables of all checks -> one table, a Markdown page and an HTML page.

    python -m workflow_scripts.stages.make_truth_page --config JSON --tables odin_cifar10.csv ... --out published_checks

writes ``{out}.csv``, ``{out}.md`` and ``{out}.html``.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from workflow_scripts.core.errors import OODError, stage
from workflow_scripts.core.files import atomic
from workflow_scripts.core.section import stage_parser
from workflow_scripts.reporting import page, printing, truth
from workflow_scripts.stages.sections.make_truth_page import MakeTruthPage

TEMPLATES = Path(page.__file__).parent


@stage
def main(argv: list[str] | None = None) -> None:
    parser = stage_parser(__spec__, __doc__, MakeTruthPage)
    parser.add_argument("--tables", required=True, nargs="+", type=Path, help="tables of the checks, in their order")
    parser.add_argument("--out", required=True, type=Path, help="where to write, without the suffix")
    args = parser.parse_args(argv)
    section: MakeTruthPage = args.config
    if len(args.tables) != len(section.checks):
        raise OODError(f"--tables: {len(section.checks)} checks need as many tables, found {len(args.tables)}")
    rows = [truth.read(path) for path in args.tables]
    checks = {name: about.model_dump() for name, about in section.checks.items()}
    more = [truth.unchecked([part.model_dump() for part in section.unchecked])]
    tables = [truth.laid_out(about["title"], about, part) for about, part in zip(checks.values(), rows, strict=True)]
    whole = pd.concat(rows, ignore_index=True)
    summary = truth.summary(whole)
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)
    environment.globals["groups"] = printing.groups
    parts = {key: Markup((TEMPLATES / f"page.{key}").read_text(encoding="utf-8")) for key in ("css", "js")}
    texts = {
        "csv": whole.to_csv(index=False),
        "md": truth.document(checks, whole, more),
        "html": environment.get_template("truth.html.j2").render(tables=[*tables, *more], summary=summary, **parts)}
    for suffix, text in texts.items():
        with atomic(args.out.with_name(f"{args.out.name}.{suffix}")) as partial:
            partial.write_text(text, encoding="utf-8")
    print(summary, flush=True)


if __name__ == "__main__":
    main()
