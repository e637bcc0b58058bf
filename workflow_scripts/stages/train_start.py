"""Train the first epochs that several trainings share: ID train store (+ parent checkpoint) -> their state.

    python -m workflow_scripts.stages.train_start --config JSON --data digits.train.h5 --seed 0 --out seed0.pt

The state holds the network, the optimiser and what the method gathered; the stage ``train_network`` goes on from it
with ``--start``, and its result has the bits of a training of its own (on CPU).
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import torch

from workflow_scripts.core.errors import stage
from workflow_scripts.core.section import stage_parser
from workflow_scripts.stages.sections.train_start import TrainStart
from workflow_scripts.training import job as jobs
from workflow_scripts.training import starts
from workflow_scripts.training.ranks import Ranks


def arguments() -> argparse.ArgumentParser:
    parser = stage_parser(__spec__, __doc__, TrainStart)
    jobs.add_arguments(parser)
    parser.add_argument("--out", required=True, help="state to write")
    return parser


@stage
def main(argv: list[str] | None = None) -> None:
    jobs.run("workflow_scripts.stages.train_start", arguments().parse_args(argv), argv, train)


def train(args: argparse.Namespace, device: torch.device, ranks: Ranks) -> None:
    """Train the epochs, and write what came of them."""
    section: TrainStart = args.config
    job = jobs.prepare(args, starts.STAGE, section, section.network, section.recipe, section.released, device, ranks)

    def work(resume: Any) -> Any:
        state = job.training.start(section.epochs, jobs.report, resume)
        return partial(starts.write, args.out, job.identity, state)

    jobs.alone(args, job, ranks, work)


if __name__ == "__main__":
    main()
