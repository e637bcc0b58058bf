"""Figures of one paper: score files and metrics of its runs -> histograms, ROC curves and a heat map, SVG and PNG.

Command: ``python -m workflow_scripts.stages.draw_figures --config JSON --out-dir figures/posthoc`` writes
``{histograms,roc,heatmap}.{svg,png}`` there.

Histograms and ROC curves show the first run that has score files; the heat map shows all runs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from workflow_scripts.core.errors import stage
from workflow_scripts.core.section import stage_parser
from workflow_scripts.reporting import curves, layout, palette, plots, plots_ood, results
from workflow_scripts.reporting.inputs import Run
from workflow_scripts.stages.sections.draw_figures import DrawFigures

MAX_CURVES = len(palette.SERIES)


def first_run(runs: Sequence[Run]) -> tuple[Run | None, dict[str, str]]:
    """The first run with a score file, and its {score: path} of files that are there."""
    for run in runs:
        paths = run.scores if isinstance(run.scores, dict) else {}
        files = {score: path for score, path in paths.items() if path and Path(path).is_file()}
        if files:
            return run, files
    return None, {}


def draw(section: DrawFigures, folder: Path) -> None:
    """All figures of a paper, into ``folder``."""
    salt = re.sub(r"\W+", "-", section.paper)
    run, files = first_run(section.runs)
    nothing = "No scores yet: no run of this paper has finished."
    if run is None:
        for name, title in (("histograms", "Score histograms"), ("roc", "ROC curves")):
            plots.save(plots.empty(nothing), folder, name, title, nothing, salt)
    else:
        draw_run(run, files, section.headline, section.names, folder, salt)
    found = results.collect(section.runs)
    tables = layout.tables(found, ["auroc"], [], section.names)
    figure = plots_ood.draw_heatmap(tables) if tables else plots.empty(nothing)
    plots.save(figure, folder, "heatmap", "AUROC by score and OOD set",
               f"AUROC in percent, mean over seeds {', '.join(map(str, results.seeds_of(found)))}. 50 is chance: blue "
               "above, orange below. Hatched: no number.", salt)


def draw_run(run: Run, files: Mapping[str, str], headline: str, names: Mapping[str, str], folder: Path,
             salt: str) -> None:
    """Histograms of the headline score and ROC curves of all scores, of one trained network."""
    score = headline if headline in files else next(iter(files))
    shown = [score, *(s for s in files if s != score)][:MAX_CURVES]
    scores = {s: curves.read_scores(files[s], run.id) for s in files if s in shown}
    who = (f"{names.get(run.network, run.network)} trained on {names.get(run.id, run.id)} "
           f"({names.get(run.label, run.label)}), seed {run.seed}")
    printed = names.get(score, score)
    plots.save(plots_ood.draw_histograms(curves.histograms(*scores[score], run.groups), names, printed), folder,
               "histograms", f"{printed}: ID against each OOD set",
               f"{who}. Share of images per bin, one axis for all panels; the outermost bins hold what lies beyond.",
               salt)
    left_out = "" if len(shown) == len(files) else f" The first {len(shown)} of {len(files)} scores."
    plots.save(plots_ood.draw_rocs(curves.rocs(scores, run.groups), names), folder, "roc", "ROC curves by OOD set",
               f"{who}. ID is positive; a dot marks the first threshold that accepts 95 % of the ID images, its "
               f"distance from the left edge is FPR95.{left_out}", salt)


@stage
def main(argv: list[str] | None = None) -> None:
    """Entry point of the stage."""
    parser = stage_parser(__spec__, __doc__, DrawFigures)
    parser.add_argument("--out-dir", required=True, type=Path, help="folder for the figures")
    args = parser.parse_args(argv)
    draw(args.config, args.out_dir)


if __name__ == "__main__":
    main()
