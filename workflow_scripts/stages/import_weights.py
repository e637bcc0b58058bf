"""Take in released or foreign weights instead of training: a file + its layout -> a checkpoint of this workflow.

    python -m workflow_scripts.stages.import_weights --config '{"network": {"name": "densenet100", "model":
    "densenet_bc",
        "options": {}}, "sha256": "ce37...", "key": "state_dict", "strip_prefix": "", "rename": {}}'
        --file densenet_parameter.pth --classes-from DATA/cifar100.train.h5 --out seed0.pt

All keys but `network` may be left out. With `probe` (and `normalise`) the head is fitted on the ID train images;
`"head": "new"` leaves the file's head aside, `"background": true` says that it has K + 1 outputs, the first of which is
the background. Other tensors than the network's, another number of classes or another hash end in an error.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import numpy as np
import torch

from workflow_scripts.core import plugins, sources
from workflow_scripts.core.changes import Normalise
from workflow_scripts.core.errors import OODError, stage
from workflow_scripts.core.files import sha256
from workflow_scripts.core.section import stage_parser
from workflow_scripts.data.images.store import open_store, streamed
from workflow_scripts.methods import probe
from workflow_scripts.models.base import Classifier
from workflow_scripts.networks import checkpoint, devices, foreign
from workflow_scripts.networks.forward import inputs
from workflow_scripts.networks.load import build, head_name
from workflow_scripts.stages.sections.import_weights import ImportWeights


def class_names(store: str | None, count: int) -> list[str]:
    """Classes of the ID store, or numbers. Raises OODError when the store has no classes, or no class is asked for."""
    if store is None:
        if count < 1:
            raise OODError(f"--classes: expected at least 1, found {count}")
        return [str(number) for number in range(count)]
    with open_store(store) as file:
        names = json.loads(file.attrs["classes"])
    if not names:
        raise OODError(f"{store}: this set has no classes; give the store of the ID set, or --classes")
    return names


def known_names(network: Classifier, model: str) -> list[str]:
    """Names of the network's tensors as a file would have them."""
    prefix = getattr(plugins.load("models", model), "PREFIX", "")
    return [name.removeprefix(prefix) for name in network.state_dict()]


def fit_probe(network: Classifier, given: argparse.Namespace, how: Normalise) -> None:
    """Replace the head by a linear probe of the ID train images."""
    device = devices.pick(given.device, given.threads, given.tf32)
    network.to(device).to(memory_format=torch.channels_last)
    with streamed(given.classes_from) as store:
        batches = ((x, torch.from_numpy(store.labels[start:start + len(x)]).to(device))
                   for start, x in inputs(store, how, 256, device))
        share = probe.fit_head(network, batches)
    print(f"linear probe: {share:.4f} of the train images are classified correctly", flush=True)


def arguments() -> argparse.ArgumentParser:
    parser = stage_parser(__spec__, __doc__, ImportWeights)
    parser.add_argument("--file", required=True, help="the released file")
    classes = parser.add_mutually_exclusive_group(required=True)
    classes.add_argument("--classes-from", metavar="STORE", help="store of the ID set, whose class names are taken")
    classes.add_argument("--classes", type=int, metavar="N", help="number of classes, where there is no store")
    parser.add_argument("--parent", help="checkpoint with the tensors that the file does not have")
    parser.add_argument("--seed", type=int, default=0, help="of the tensors that the file does not have")
    devices.add_arguments(parser)
    parser.add_argument("--out", required=True, help="checkpoint to write")
    return parser


@stage
def main(argv: list[str] | None = None) -> None:
    given = arguments().parse_args(argv)
    section: ImportWeights = given.config
    if section.probe and not (section.normalise and given.classes_from):
        raise OODError("--config: probe fits the head on train images: give normalise, and --classes-from their store")
    root = os.environ.get("OOD_DATA")
    found = sources.locate(given.file, root)
    if len(found) != 1:
        raise OODError(f"--file: {given.file} is not there ({f'below the data root {root}' if root else 'no data root'}"
                       "; OOD_DATA or the config key data_root names it)")
    given.file = found[0]
    names = class_names(given.classes_from, given.classes or 0)
    torch.manual_seed(given.seed)
    network = build(section.network, len(names) + section.background)
    foreign.check(given.file, section.sha256, section.git_blob)
    content = foreign.content(given.file)
    state = foreign.tensors(content, given.file, section.key, section.strip_prefix, section.rename, section.drop,
                            known_names(network, section.network.model))
    if given.classes_from and section.head != "new":
        said = getattr(section.network.options, "classes", ())  # a user's word on the order, which must be the file's
        foreign.same_order(foreign.stated_classes(content), said or names, given.file)
    if given.parent:
        checkpoint.load_weights(network, checkpoint.read(given.parent)["state_dict"], given.parent,
                                section.network.name)
    take_in = getattr(plugins.load("models", section.network.model), "take_in", None)
    if take_in:
        state = take_in(section.network.options, state, names, given.file)
    state = foreign.converted(state, section.network, given.file)
    if section.head == "new":
        own, head = network.state_dict(), head_name(network)
        state |= {key: own[key] for key in (f"{head}.weight", f"{head}.bias")}
    foreign.load(network, state, given.file, section.network.name, section.fresh)
    meet = getattr(network, "meet", None)
    if meet and given.classes_from:  # a user's module: before anything else is computed of it
        with streamed(given.classes_from) as store:
            meet(torch.from_numpy(np.asarray(store.photos()[:4])).permute(0, 3, 1, 2) / 255)
    if section.probe and section.normalise:
        fit_probe(network, given, section.normalise)
    checkpoint.save(given.out, network, {
        "network": section.network.name, "classes": names, "seed": None, "history": [],
        **({"background": True} if section.background else {}),
        "source": {"file": Path(given.file).name, "sha256": sha256(given.file)}})


if __name__ == "__main__":
    main()
