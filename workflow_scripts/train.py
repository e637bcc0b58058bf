"""Train one network: ID train store (+ parent checkpoint, + outlier store) -> checkpoint.

    python -m workflow_scripts.train --config JSON --data digits.train.h5 --seed 0 --out seed0.pt
"""

from __future__ import annotations

import argparse
import json

import torch

from workflow_scripts import plugins
from workflow_scripts.data.store import load_store
from workflow_scripts.errors import OODError, stage
from workflow_scripts.training import checkpoint, device
from workflow_scripts.training.images import images_of
from workflow_scripts.training.loop import train
from workflow_scripts.training.memory import keep_freed_memory
from workflow_scripts.training.network import build
from workflow_scripts.training.outliers import load_outliers

SHARED_SEED = 1  # goe.2g-5


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m workflow_scripts.train", description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, type=json.loads, metavar="JSON",
                        help="network, recipe, released and steps, as the workflow prints them")
    parser.add_argument("--data", required=True, help="store of the ID train images")
    parser.add_argument("--parent", help="checkpoint whose weights are the start")
    parser.add_argument("--outliers", help="store of the recipe's outliers")
    parser.add_argument("--seed", required=True, type=int)
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: %(default)s)")
    parser.add_argument("--out", required=True, help="checkpoint to write")
    return parser


@stage
def main(argv: list[str] | None = None) -> None:
    args = arguments().parse_args(argv)
    network_section, recipe = args.config["network"], args.config["recipe"]
    where = device.pick(args.device, args.threads)
    if where.type == "cpu":
        keep_freed_memory()
    store = load_store(args.data)
    if store.images is None:
        raise OODError(f"{args.data} holds ready network inputs (a noise set); a network is trained on images")
    data = images_of(store, where, workers=args.threads - 1)

    released = tuple(args.config["released"])
    seed = SHARED_SEED if "goe.2g-5" in released else args.seed
    torch.manual_seed(seed)
    network = build(network_section, len(store.classes)).to(where)
    if args.parent:
        parent = checkpoint.read(args.parent)
        checkpoint.load_weights(network, parent["state_dict"], args.parent, network_section["name"])
    method_options = plugins.parse_options("methods", recipe["method"], recipe["options"], "options")
    method = plugins.load("methods", recipe["method"]).build(method_options, released)
    outliers = None
    if method.outliers and args.outliers:
        outliers = load_outliers(args.outliers, recipe["outliers"], seed, where, store.images.shape[1:])
    history = train(network, method, data, recipe, seed, args.config["steps"], outliers=outliers, released=released)
    checkpoint.save(args.out, network, {"network": network_section["name"], "classes": list(store.classes),
                                        "seed": args.seed, "history": history})


if __name__ == "__main__":
    main()
