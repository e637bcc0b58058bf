"""Draw one of a paper's own pictures: files of its networks -> SVG, PNG and a JSON of the numbers behind it.

    python -m workflow_scripts.stages.draw_picture --config JSON --out-dir results/small/figures/bgresample
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from workflow_scripts.core import plugins
from workflow_scripts.core.errors import stage
from workflow_scripts.core.files import atomic
from workflow_scripts.core.section import stage_parser
from workflow_scripts.pictures.base import Run
from workflow_scripts.reporting import plots
from workflow_scripts.stages.sections.draw_picture import DrawPicture


@stage
def main(argv: list[str] | None = None) -> None:
    """Entry point of the stage."""
    parser = stage_parser(__spec__, __doc__, DrawPicture)
    parser.add_argument("--out-dir", required=True, type=Path, help="folder for the picture")
    args = parser.parse_args(argv)
    section: DrawPicture = args.config
    runs = [Run(**dict(run)) for run in section.runs]
    drawing = plugins.load("pictures", section.picture).draw(section.options, runs, section.names)
    salt = re.sub(r"\W+", "-", section.paper)
    plots.save(drawing.figure, args.out_dir, section.name, drawing.title, drawing.caption, salt)
    with atomic(args.out_dir / f"{section.name}.json") as partial:
        partial.write_text(json.dumps(drawing.facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
