"""Pseudo-masks of a store's images from the class activation maps of a classifier: store + checkpoint -> one HDF5 file.

    python -m workflow_scripts.stages.make_masks --config '{"network": {"name": "bit", "model": "bit", "options": {}},
        "normalise": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}, "options": {"by": "true"}}'
        --checkpoint seed0.pt --store DATA/cifar10_128.train.h5 --out masks.h5

The maps themselves are not kept. The file: :mod:`workflow_scripts.cams.files`.
"""

from __future__ import annotations

import argparse
import json
import time

import h5py
import numpy as np
import torch

from workflow_scripts.cams.files import create_masks
from workflow_scripts.cams.maps import activation_maps
from workflow_scripts.cams.masks import foreground, pseudo_masks
from workflow_scripts.cams.options import MaskOptions
from workflow_scripts.core.changes import Normalise
from workflow_scripts.core.errors import OODError, stage
from workflow_scripts.core.files import atomic
from workflow_scripts.core.section import stage_parser
from workflow_scripts.data.images.store import Store, streamed
from workflow_scripts.models.base import Classifier
from workflow_scripts.networks import devices
from workflow_scripts.networks.forward import inputs
from workflow_scripts.networks.load import trained
from workflow_scripts.stages.sections.make_masks import MakeMasks


def check(store: Store, network: Classifier, path: str) -> None:
    """Refuse a store that is not of the network's ID set.

    Raises:
        OODError: no images, other classes, or a class without images.
    """
    if store.images is None or not store.classes:
        raise OODError(f"{path}: pseudo-masks are made of images with classes; give the store of the ID train images")
    if len(store.classes) != network.head.out_features:
        raise OODError(f"{path}: {len(store.classes)} classes, but the checkpoint has {network.head.out_features}; the "
                       "two belong to different ID sets")
    counts = np.bincount(store.labels, minlength=len(store.classes))
    if not counts.all():
        empty = [store.classes[i] for i in np.flatnonzero(counts == 0)]
        raise OODError(f"{path}: {len(empty)} of {len(store.classes)} classes have no image: {', '.join(empty[:5])}; "
                       "every class needs at least one")


def write_masks(network: Classifier, store: Store, how: Normalise, options: MaskOptions, device: torch.device,
                file: h5py.File) -> tuple[int, list[str]]:
    """Fill ``file``. -> images without any activation, names of the classes that no pixel belongs to."""
    count, (height, width) = len(store.labels), store.photos().shape[1:3]
    masks = create_masks(file, count, height, width, len(store.classes))
    kept, empty = np.empty(count, np.int64), 0
    labels = torch.from_numpy(store.labels).to(device)
    present = torch.zeros(len(store.classes) + 1, dtype=torch.bool, device=device)
    for start, x in inputs(store, how, options.batch_size, device):
        rows = slice(start, start + len(x))
        cams, classes = activation_maps(network, x, labels[rows] if options.by == "true" else None, options.scales,
                                        options.flip)
        inside = foreground(cams, options.sigma, options.threshold)
        masks[rows] = pseudo_masks(inside, classes).cpu().numpy().astype(masks.dtype)
        kept[rows] = classes.cpu().numpy()
        empty += int((cams.amax((1, 2)) <= 0).sum())
        present[classes[inside.any(2).any(1)] + 1] = True
    absent = [store.classes[c] for c in np.flatnonzero(~present[1:].cpu().numpy())]
    file.create_dataset("classes", data=kept, track_times=False)
    file.attrs.update(empty=empty, absent=json.dumps(absent), options=json.dumps(options.model_dump(), sort_keys=True))
    return empty, absent


def arguments() -> argparse.ArgumentParser:
    parser = stage_parser(__spec__, __doc__, MakeMasks)
    parser.add_argument("--checkpoint", required=True, help="a classifier of the ID classes")
    parser.add_argument("--store", required=True, help="images to make pseudo-masks of")
    devices.add_arguments(parser)
    parser.add_argument("--out", required=True, help="the pseudo-masks to write")
    return parser


@stage
def main(argv: list[str] | None = None) -> None:
    given = arguments().parse_args(argv)
    section: MakeMasks = given.config
    device = devices.pick(given.device, given.threads, given.tf32)
    network = trained(section.network, given.checkpoint, device)
    started = time.perf_counter()
    with streamed(given.store) as store:
        check(store, network, given.store)
        with atomic(given.out) as partial, h5py.File(partial, "w") as file:
            empty, absent = write_masks(network, store, section.normalise, section.options, device, file)
    speed = len(store.labels) / (time.perf_counter() - started)
    print(f"{len(store.labels)} images, {speed:.1f} images/s; {empty} without any activation: all background")
    if absent:
        print(f"{len(absent)} classes have no pixel in any pseudo-mask, so nothing is learned of them: "
              f"{', '.join(absent[:5])}")


if __name__ == "__main__":
    main()
