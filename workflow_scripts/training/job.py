"""A training as a command asks for it: its arguments, network, method and images, and what its result depends on."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

import torch

from workflow_scripts.core import own, plugins
from workflow_scripts.core.digest import digest
from workflow_scripts.core.errors import OODError
from workflow_scripts.core.files import sha256
from workflow_scripts.core.section import Section
from workflow_scripts.data.images.store import Store, load_store, open_store
from workflow_scripts.methods.base import Method
from workflow_scripts.methods.recipe import MethodRecipe
from workflow_scripts.models.base import Classifier, WithFrozenBlocks, initialise_convolutions
from workflow_scripts.networks import checkpoint, devices
from workflow_scripts.networks.architecture import Network
from workflow_scripts.networks.load import build, in_bfloat16, start_from
from workflow_scripts.networks.memory import keep_freed_memory
from workflow_scripts.training import ranks as parallel
from workflow_scripts.training.compiled import How, compiled
from workflow_scripts.training.images import Images, TokenImages, images_of
from workflow_scripts.training.launch import end_with_parent, launch
from workflow_scripts.training.loop import Training
from workflow_scripts.training.outliers import load_outliers
from workflow_scripts.training.resume import Resume
from workflow_scripts.training.tokens import Tokens
from workflow_scripts.training.writer import Writer

SHARED_SEED = 1  # goe.2g-5
_SHARED = 0.9  # of a GPU's memory, for the trainings that share it; their CUDA contexts take some of the rest
_FILES = ("parent", "masks", "outliers", "selection", "tokens", "test")
"""Arguments that not every training has."""


@dataclass(frozen=True)
class Job:
    """One training, ready to run."""

    training: Training
    network: Classifier
    method: Method
    classes: tuple[str, ...]
    background: bool
    """Whether the network has an output for the background."""
    identity: dict[str, Any]
    """What the result depends on: progress of another run must not be continued."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What every training is told."""
    parser.add_argument("--data", required=True, help="store of the ID train images")
    parser.add_argument("--parent", help="checkpoint whose weights are the start")
    parser.add_argument("--tokens", help="output of the frozen blocks for the ID train images, in their place")
    parser.add_argument("--test", help="store of the ID test images, for a defect that reads them (npos.B12)")
    parser.add_argument("--seed", required=True, type=int)
    devices.add_arguments(parser)
    parser.add_argument("--gpus", type=int, default=1, metavar="N",
                        help="GPUs that share every batch, with --device cpu processes (default: %(default)s)")
    parser.add_argument("--no-fused", action="store_false", dest="fused",
                        help="on a GPU, change weights by a kernel for each operation, not by one")
    parser.add_argument("--compile", choices=get_args(How), default="no",
                        help="compile the passes with gradients (default: %(default)s)")
    parser.add_argument("--share", type=int, default=1, metavar="N",
                        help="take an N-th of the GPU's memory at most, since N trainings are on it at once")
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)  # both are given to the processes it starts
    parser.add_argument("--meeting", help=argparse.SUPPRESS)
    parser.add_argument("--save-every", type=float, default=10.0, metavar="MINUTES",
                        help="how often progress is written beside the output (default: %(default)s)")


def run(module: str, args: argparse.Namespace, argv: Sequence[str] | None,
        train: Callable[[argparse.Namespace, torch.device, parallel.Ranks], None]) -> None:
    """Call ``train`` in as many processes as there are GPUs.

    Args:
        module: the stage's, which the other processes run.
        argv: its words; ``None``: those of this process.
    """
    if args.gpus > 1 and args.rank is None:
        launch(module, sys.argv[1:] if argv is None else argv, args.gpus, args.device)
        return
    if args.rank is not None:
        end_with_parent()
    device = devices.pick(args.device, max(1, args.threads // args.gpus), args.tf32)
    ranks = parallel.join(args.meeting, args.rank or 0, args.gpus, device)
    if args.share > 1 and device.type == "cuda":  # so that the one that is too large fails, and not its neighbour
        torch.cuda.set_per_process_memory_fraction(_SHARED / args.share)
    try:
        train(args, device, ranks)
    except torch.OutOfMemoryError as error:
        raise _too_large(args.share, str(error).splitlines()[0]) from error
    ranks.leave()


def _too_large(share: int, reason: str) -> OODError:
    """What a training that ran out of a GPU's memory says."""
    if share == 1:
        return OODError(f"training.batch_size: the GPU's memory is too small for this training ({reason}); lower it, "
                        "or set training.precision: bfloat16")
    return OODError(f"trainings_per_gpu: this training does not fit into 1/{share} of the GPU's memory ({reason}); "
                    "where the profile has retries it is tried again alone; lower trainings_per_gpu if many end so")


def prepare(args: argparse.Namespace, stage: str, section: Section, network: Network, recipe: MethodRecipe,
            released: Sequence[str], device: torch.device, ranks: parallel.Ranks,
            masks: Callable[[Store], Any] | None = None) -> Job:
    """Read what a training needs.

    Args:
        stage: module name of the command (``stages.train_network``), whose code the result depends on.
        section: its section, of which ``network``, ``recipe`` and ``released`` are parts.
        masks: reads the pseudo-masks of the train images, (N, H, W) uint8; ``None``: none.

    Raises:
        OODError: inputs that do not fit.
    """
    if device.type == "cpu":
        keep_freed_memory()
    given = {name: getattr(args, name, None) for name in _FILES}
    store = load_store(args.data, pixels=given["tokens"] is None)
    if store.images is None:
        raise OODError(f"{args.data} holds ready network inputs (a noise set); a network is trained on images")

    if recipe.training.precision == "bfloat16":
        devices.check_bfloat16(device, "training.precision")
    released = tuple(released)
    seed = SHARED_SEED if "goe.2g-5" in released else args.seed
    torch.manual_seed(seed)
    background = plugins.spec("methods", recipe.method).background
    net = build(network, len(store.classes) + background).to(device)
    if recipe.initialisation is not None:
        initialise_convolutions(net, recipe.initialisation)
    if given["parent"]:
        start_from(net, checkpoint.read(given["parent"]), background, given["parent"], network.name,
                   getattr(recipe.options, "head", "") == "parent")
    if recipe.training.precision == "bfloat16":
        in_bfloat16(net)
    compiled(net, args.compile, device, args.gpus)
    method = plugins.load("methods", recipe.method).build(recipe.options, released)
    data: Images
    if given["tokens"]:
        if not isinstance(net, WithFrozenBlocks):
            raise OODError(f"--tokens: network '{network.name}' has no frozen blocks (model clip_vit has)")
        labels = torch.from_numpy(store.labels).to(device)
        data = TokenImages(Tokens(given["tokens"], len(labels), net.token_shape, device), labels)
    else:
        of_images = torch.from_numpy(masks(store)).to(device) if masks else None
        data = images_of(store, device, workers=max(0, args.threads // args.gpus - 1), masks=of_images, ranks=ranks,
                         geometry=recipe.resident)
    outliers = None
    if method.outliers and given["outliers"] and recipe.outliers:
        outliers = load_outliers(given["outliers"], recipe.outliers, seed, device, store.images.shape[1:],
                                 given["selection"])
    test = images_of(load_store(given["test"]), device) if given["test"] else None
    training = Training(net, method, data, recipe, seed, outliers, released, test, ranks, args.fused)
    return Job(training, net, method, store.classes, background, {
        "configuration": section.dump(), "inputs": inputs(args, store.attrs),
        "code": code(stage, network, recipe.method), "seed": args.seed, "threads": args.threads,
        "device": args.device, "tf32": args.tf32, "fused": args.fused, "compile": args.compile})


def code(stage: str, network: Network, method: str) -> dict[str, str]:
    """Code behind a training, a user's own among it."""
    return digest(stage, *own.network_code(network.model, network.options, f"network '{network.name}'"),
                  f"methods.{method}")


def inputs(args: argparse.Namespace, data: dict[str, Any]) -> str:
    """The files of a training by their content, as text; of stores by what they were made of."""
    files: dict[str, Any] = {name: sha256(path) for name in ("parent", "selection", "masks")
                             if (path := getattr(args, name, None))}
    for name in ("outliers", "test"):
        if path := getattr(args, name, None):
            with open_store(path) as file:
                files[name] = [len(file["labels"]), file.attrs["definition"], file.attrs["sources"]]
    return json.dumps([files, data], sort_keys=True)


def alone(args: argparse.Namespace, job: Job, ranks: parallel.Ranks,
          work: Callable[[Resume], Callable[[], None]]) -> None:
    """Do the work as the only job that writes ``args.out``, or take the result of another one of the same run.

    Args:
        work: trains, and gives back what then writes the result; of several processes the first one does that.
    """
    with nullcontext() if ranks.rank else Writer(args.out, job.identity) as writer:
        if any(ranks.largest(int(writer is not None and writer.finished))):
            return
        check = writer.check if writer else lambda: None
        resume = Resume(args.out, job.identity, args.save_every, ranks, check)
        resume.catch_signals()
        write = work(resume)
        if writer:
            check()
            write()
            resume.done()


report = partial(print, flush=True)
"""Receives a line per epoch."""
