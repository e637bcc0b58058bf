"""Train one network: ID train store (+ parent checkpoint, + outlier store) -> checkpoint.

    python -m workflow_scripts.stages.train_network --config JSON --data digits.train.h5 --seed 0 --out seed0.pt
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import nullcontext
from functools import partial
from typing import Any

import h5py
import torch
from torch import Tensor

from workflow_scripts.cams.files import read_masks
from workflow_scripts.core import plugins
from workflow_scripts.core.digest import digest
from workflow_scripts.core.errors import OODError, stage
from workflow_scripts.core.files import atomic, sha256
from workflow_scripts.core.section import stage_parser
from workflow_scripts.data.images.store import load_store, open_store
from workflow_scripts.methods.base import Method
from workflow_scripts.models.base import Classifier, WithFrozenBlocks, initialise_convolutions
from workflow_scripts.networks import checkpoint, devices
from workflow_scripts.networks.load import build, in_bfloat16, start_from
from workflow_scripts.networks.memory import keep_freed_memory
from workflow_scripts.stages.sections.train_network import TrainNetwork
from workflow_scripts.training import ranks as parallel
from workflow_scripts.training.images import Images, TokenImages, images_of
from workflow_scripts.training.launch import end_with_parent, launch
from workflow_scripts.training.loop import Training
from workflow_scripts.training.outliers import load_outliers
from workflow_scripts.training.resume import Resume
from workflow_scripts.training.tokens import Tokens
from workflow_scripts.training.writer import Writer

SHARED_SEED = 1  # goe.2g-5


def arguments() -> argparse.ArgumentParser:
    parser = stage_parser(__spec__, __doc__, TrainNetwork)
    parser.add_argument("--data", required=True, help="store of the ID train images")
    parser.add_argument("--parent", help="checkpoint whose weights are the start")
    parser.add_argument("--masks", help="pseudo-masks of the train images")
    parser.add_argument("--outliers", help="store of the recipe's outliers")
    parser.add_argument("--selection", help="numbers of the outliers to train against; left out: all")
    parser.add_argument("--tokens", help="output of the frozen blocks for the ID train images, in their place")
    parser.add_argument("--test", help="store of the ID test images, for a defect that reads them (npos.B12)")
    parser.add_argument("--seed", required=True, type=int)
    devices.add_arguments(parser)
    parser.add_argument("--gpus", type=int, default=1, metavar="N",
                        help="GPUs that share every batch, with --device cpu processes (default: %(default)s)")
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)  # both are given to the processes it starts
    parser.add_argument("--meeting", help=argparse.SUPPRESS)
    parser.add_argument("--save-every", type=float, default=10.0, metavar="MINUTES",
                        help="how often progress is written beside the checkpoint (default: %(default)s)")
    parser.add_argument("--record", help="training record to write: history, and what the method learned")
    parser.add_argument("--out", required=True, help="checkpoint to write")
    return parser


@stage
def main(argv: list[str] | None = None) -> None:
    args = arguments().parse_args(argv)
    if args.gpus > 1 and args.rank is None:
        launch("workflow_scripts.stages.train_network", sys.argv[1:] if argv is None else argv, args.gpus, args.device)
        return
    if args.rank is not None:
        end_with_parent()
    device = devices.pick(args.device, max(1, args.threads // args.gpus), args.tf32)
    ranks = parallel.join(args.meeting, args.rank or 0, args.gpus, device)
    train(args, device, ranks)
    ranks.leave()


def train(args: argparse.Namespace, device: torch.device, ranks: parallel.Ranks) -> None:
    """Train, and write what came of it; of several processes the first one does."""
    section: TrainNetwork = args.config
    recipe = section.recipe
    if device.type == "cpu":
        keep_freed_memory()
    store = load_store(args.data, pixels=args.tokens is None)
    if store.images is None:
        raise OODError(f"{args.data} holds ready network inputs (a noise set); a network is trained on images")

    released = tuple(section.released)
    seed = SHARED_SEED if "goe.2g-5" in released else args.seed
    torch.manual_seed(seed)
    background = plugins.spec("methods", recipe.method).background
    network = build(section.network, len(store.classes) + background).to(device)
    if recipe.initialisation is not None:
        initialise_convolutions(network, recipe.initialisation)
    if args.parent:
        start_from(network, checkpoint.read(args.parent), background, args.parent, section.network.name,
                   getattr(recipe.options, "head", "") == "parent")
    if recipe.training.precision == "bfloat16":
        in_bfloat16(network)
    method = plugins.load("methods", recipe.method).build(recipe.options, released)
    data: Images
    if args.tokens:
        if not isinstance(network, WithFrozenBlocks):
            raise OODError(f"--tokens: network '{section.network.name}' has no frozen blocks (model clip_vit has)")
        labels = torch.from_numpy(store.labels).to(device)
        data = TokenImages(Tokens(args.tokens, len(labels), network.token_shape, device), labels)
    else:
        masks = None
        if args.masks:
            masks = torch.from_numpy(read_masks(args.masks, len(store.labels), len(store.classes))).to(device)
        data = images_of(store, device, workers=max(0, args.threads // args.gpus - 1), masks=masks, ranks=ranks)
    outliers = None
    if method.outliers and args.outliers and recipe.outliers:
        outliers = load_outliers(args.outliers, recipe.outliers, seed, device, store.images.shape[1:], args.selection)
    training = Training(network, method, data, recipe, seed, outliers, released, test_images(args.test, device),
                        ranks)
    this = identity(args, store.attrs)
    with nullcontext() if ranks.rank else Writer(args.out, this) as writer:
        if any(ranks.largest(int(writer is not None and writer.finished))):
            return
        check = writer.check if writer else lambda: None
        resume = Resume(args.out, this, args.save_every, ranks, check)
        resume.catch_signals()
        history = training.run(section.steps, partial(print, flush=True), resume)
        if writer:
            check()
            write(args, network, method, list(store.classes), history, background)
            resume.done()


def write(args: argparse.Namespace, network: Classifier, method: Method, classes: list[str],
          history: list[dict[str, float]], background: bool) -> None:
    """Write the training record and the checkpoint."""
    if args.record:
        write_record(args.record, history, method.record())
    about = {"network": args.config.network.name, "classes": classes, "seed": args.seed, "history": history}
    if background:
        about["background"] = True
    if "dfb.2h-1" in args.config.released:
        about["released"] = ["dfb.2h-1"]
    checkpoint.save(args.out, network, about)


def test_images(path: str | None, device: torch.device) -> Images | None:
    """ID test images on the device, or ``None`` for no path."""
    if path is None:
        return None
    store = load_store(path)
    return images_of(store, device)


def identity(args: argparse.Namespace, data: dict[str, Any]) -> dict[str, Any]:
    """What a run's result depends on: progress of another one must not be continued."""
    section: TrainNetwork = args.config
    files: dict[str, Any] = {name: sha256(path) for name in ("parent", "selection", "masks")
                             if (path := getattr(args, name))}
    for name in filter(partial(getattr, args), ("outliers", "test")):
        with open_store(getattr(args, name)) as file:
            files[name] = [len(file["labels"]), file.attrs["definition"], file.attrs["sources"]]
    return {"configuration": section.dump(), "inputs": json.dumps([files, data], sort_keys=True),
            "code": digest("stages.train_network", f"models.{section.network.model}",
                           f"methods.{section.recipe.method}"),
            "seed": args.seed, "threads": args.threads, "device": args.device, "tf32": args.tf32}


def write_record(path: str, history: list[dict[str, float]], learned: dict[str, Tensor]) -> None:
    """Write ``history/{column}`` (one value per epoch) and the method's arrays."""
    with atomic(path) as unfinished, h5py.File(unfinished, "w") as file:
        for key in history[0] if history else ():
            file.create_dataset(f"history/{key}", data=[row[key] for row in history], track_times=False)
        for key, tensor in learned.items():
            file.create_dataset(key, data=tensor.detach().cpu().numpy(), track_times=False)


if __name__ == "__main__":
    main()
