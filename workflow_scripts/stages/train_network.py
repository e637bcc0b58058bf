"""Train one network: ID train store (+ parent checkpoint, + outlier store) -> checkpoint.

    python -m workflow_scripts.stages.train_network --config JSON --data digits.train.h5 --seed 0 --out seed0.pt
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import h5py
import torch
from torch import Tensor

from workflow_scripts.cams.files import read_masks
from workflow_scripts.core import plugins
from workflow_scripts.core.errors import OODError, stage
from workflow_scripts.core.files import atomic
from workflow_scripts.core.section import stage_parser
from workflow_scripts.data.images.store import Store
from workflow_scripts.networks import checkpoint
from workflow_scripts.stages.sections.train_network import TrainNetwork
from workflow_scripts.training import job as jobs
from workflow_scripts.training import starts
from workflow_scripts.training.ranks import Ranks


def arguments() -> argparse.ArgumentParser:
    parser = stage_parser(__spec__, __doc__, TrainNetwork)
    jobs.add_arguments(parser)
    parser.add_argument("--start", help="first epochs, which the stage train_start trained")
    parser.add_argument("--masks", help="pseudo-masks of the train images")
    parser.add_argument("--outliers", help="store of the recipe's outliers")
    parser.add_argument("--selection", help="numbers of the outliers to train against; left out: all")
    parser.add_argument("--record", help="training record to write: history, and what the method learned")
    parser.add_argument("--out", required=True, help="checkpoint to write")
    return parser


@stage
def main(argv: list[str] | None = None) -> None:
    jobs.run("workflow_scripts.stages.train_network", arguments().parse_args(argv), argv, train)


def train(args: argparse.Namespace, device: torch.device, ranks: Ranks) -> None:
    """Train, and write what came of it."""
    section: TrainNetwork = args.config
    masks = partial(masks_of, args.masks) if args.masks else None
    job = jobs.prepare(args, "stages.train_network", section, section.network, section.recipe, section.released,
                       device, ranks, masks)
    start = None
    if args.start:
        if section.start is None:
            raise OODError("--start: the section says nothing of first epochs; give it `start`, or leave --start out")
        shared = section.start
        start = starts.read(args.start, starts.identity(job, shared, shared.network, shared.recipe.method))

    def work(resume: Any) -> Any:
        carried = plugins.spec("methods", section.recipe.method).carried
        history = job.training.run(section.steps, jobs.report, resume, start, carried)
        return partial(write, args, job, history)

    jobs.alone(args, job, ranks, work)


def masks_of(path: str, store: Store) -> Any:
    """The pseudo-masks of a store's images."""
    return read_masks(path, len(store.labels), len(store.classes))


def write(args: argparse.Namespace, job: jobs.Job, history: list[dict[str, float]]) -> None:
    """Write the training record and the checkpoint."""
    if args.record:
        write_record(args.record, history, job.method.record())
    about = {"network": args.config.network.name, "classes": list(job.classes), "seed": args.seed, "history": history}
    if job.background:
        about["background"] = True
    if "dfb.2h-1" in args.config.released:
        about["released"] = ["dfb.2h-1"]
    checkpoint.save(args.out, job.network, about)


def write_record(path: str, history: list[dict[str, float]], learned: dict[str, Tensor]) -> None:
    """Write ``history/{column}`` (one value per epoch) and the method's arrays."""
    with atomic(path) as unfinished, h5py.File(unfinished, "w") as file:
        for key in history[0] if history else ():
            file.create_dataset(f"history/{key}", data=[row[key] for row in history], track_times=False)
        for key, tensor in learned.items():
            file.create_dataset(key, data=tensor.detach().cpu().numpy(), track_times=False)


if __name__ == "__main__":
    main()
