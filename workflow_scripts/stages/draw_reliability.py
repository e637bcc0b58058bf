"""Figures of one paper on how far its networks' confidences can be relied on: SVG and PNG.

Command: ``python -m workflow_scripts.stages.draw_reliability --config JSON --out-dir figures/goe`` writes
``{risk_coverage,confidences,reliability}.{svg,png}`` there: the error rate among the most confident share of the ID
test images, the confidences of right, wrong and OOD images, and the reliability diagram with its ECE.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from workflow_scripts.core.errors import OODError, stage
from workflow_scripts.core.section import stage_parser
from workflow_scripts.metrics.rows import read_id_task
from workflow_scripts.reporting import curves, plots, plots_id
from workflow_scripts.reporting.confidences import Seen, Training
from workflow_scripts.stages.sections.draw_reliability import Confidences, DrawReliability


def seen(run: Confidences, probability: bool) -> Seen | None:
    """What one network says of its test images; ``None`` where it has not run.

    Raises:
        OODError: a set is missing, or scores and features are of different runs.
    """
    if not all(Path(path).is_file() for path in (run.scores, run.features)):
        return None
    id_scores, sets = curves.read_scores(run.scores, run.id)
    correct, softmax = read_id_task(Path(run.features))
    lacking = [name for name in run.sets if name not in sets]
    if lacking or id_scores.size != correct.size:
        raise OODError(f"{run.scores}: expected the scores of {', '.join(run.sets)} and {correct.size} of the ID test "
                       f"set, found {id_scores.size} of that and none of {lacking}; delete it and run again")
    ood = np.concatenate([sets[name] for name in run.sets])
    return Seen(np.exp(id_scores) if probability else id_scores, correct, softmax, np.exp(ood) if probability else ood)


def draw(section: DrawReliability, folder: Path) -> None:
    """All figures of a paper, into ``folder``."""
    names, score, probability = section.names, section.score, section.probability
    salt = re.sub(r"\W+", "-", section.paper)
    found: dict[tuple[str, str, str], list[Seen]] = {}
    seeds: set[int] = set()
    for run in section.runs:
        if one := seen(run, probability):
            found.setdefault((run.id, run.network, run.label), []).append(one)
            seeds.add(run.seed)
    trainings = [Training(*key, tuple(of)) for key, of in found.items()]
    printed = names.get(score, score)
    said = f"Seeds {', '.join(map(str, sorted(seeds)))}."
    for name, title, caption, figure in (
        ("risk_coverage", "Risk over coverage",
         f"Errors among the ID test images that {printed} is most certain of, over the share of images accepted; the "
         f"area is AURC. Lines: mean over seeds, bands: smallest to largest. {said}",
         lambda: plots_id.draw_risks(trainings, names)),
        ("confidences", "Confidences of right, wrong and OOD images",
         f"{'Softmax probability of the predicted class' if probability else printed}; share of the images of each "
         f"kind per bin, on a root scale, all OOD sets and seeds together. {said}",
         lambda: plots_id.draw_confidences(trainings, names, printed, probability)),
        ("reliability", "Reliability diagram",
         "Accuracy over the softmax probability of the predicted class, ID test images in 15 bins. On the diagonal "
         "the network is right as often as it says. ECE: mean ± standard deviation over seeds, with which the bars "
         f"are joined. {said}", lambda: plots_id.draw_reliability(trainings, names)),
    ):
        nothing = "No scores yet: no run of this paper has finished."
        plots.save(figure() if trainings else plots.empty(nothing), folder, name, title,
                   caption if trainings else nothing, salt)


@stage
def main(argv: list[str] | None = None) -> None:
    """Entry point of the stage."""
    parser = stage_parser(__spec__, __doc__, DrawReliability)
    parser.add_argument("--out-dir", required=True, type=Path, help="folder for the figures")
    args = parser.parse_args(argv)
    draw(args.config, args.out_dir)


if __name__ == "__main__":
    main()
