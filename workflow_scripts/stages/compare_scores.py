"""Compare the scores of a paper's networks on the same images: score files -> a CSV of 95 % intervals.

    python -m workflow_scripts.stages.compare_scores --config JSON --out results/small/intervals/posthoc.csv

For each ID set, network, OOD set, average over sets and metric (auroc, fpr95): the interval of each score of each
training, and of the leader's difference from each other, where the leader has the best mean over seeds. ``over`` names
what varies: ``images`` (a row per seed; the network is fixed) or ``seeds`` (two or more; the images are fixed). A file
that is not there is left out.
"""

from __future__ import annotations

from pathlib import Path

from workflow_scripts.core.errors import stage
from workflow_scripts.core.section import stage_parser
from workflow_scripts.reporting import intervals
from workflow_scripts.reporting.results import write_csv
from workflow_scripts.stages.sections.compare_scores import CompareScores


@stage
def main(argv: list[str] | None = None) -> None:
    """Entry point of the stage."""
    parser = stage_parser(__spec__, __doc__, CompareScores)
    parser.add_argument("--out", required=True, type=Path, help="CSV to write")
    args = parser.parse_args(argv)
    found = intervals.compared(args.config.runs, args.config.draws)
    write_csv(args.out, found)
    print(f"{args.out}: {len(found)} intervals")


if __name__ == "__main__":
    main()
