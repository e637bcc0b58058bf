"""Draw one of a paper's own pictures: files of its networks -> SVG, PNG and a JSON of the numbers behind it.

    python -m workflow_scripts.stages.draw_picture --config JSON --out-dir results/small/figures/bgresample
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from workflow_scripts.core import plugins
from workflow_scripts.core.errors import command, stage
from workflow_scripts.core.files import atomic
from workflow_scripts.pictures.base import Run
from workflow_scripts.reporting import plots
from workflow_scripts.reporting.inputs import need, read_config


@stage
def main(argv: list[str] | None = None) -> None:
    parser = command(__spec__, __doc__)
    parser.add_argument("--config", required=True, metavar="JSON", help="paper, name, picture, options, runs, names")
    parser.add_argument("--out-dir", required=True, type=Path, help="folder for the picture")
    args = parser.parse_args(argv)
    config = read_config(args.config)
    picture, name = need(config, "picture", str, "config"), need(config, "name", str, "config")
    options = plugins.parse_options("pictures", picture, config["options"], "options")
    runs = [Run(**run) for run in need(config, "runs", list, "config")]
    drawing = plugins.load("pictures", picture).draw(options, runs, config["names"])
    salt = re.sub(r"\W+", "-", need(config, "paper", str, "config"))
    plots.save(drawing.figure, args.out_dir, name, drawing.title, drawing.caption, salt)
    with atomic(args.out_dir / f"{name}.json") as partial:
        partial.write_text(json.dumps(drawing.facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
