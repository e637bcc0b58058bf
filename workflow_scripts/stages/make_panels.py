"""What a network with a background output sees in a few images of each set: images -> maps of every kind, one HDF5.

    python -m workflow_scripts.stages.make_panels --config JSON --classifier seed0.pt --checkpoint seed0.pt
        --stores digits.test.h5 faces.test.h5 --out panels.h5

The first ``images`` images of each store, evenly spaced. A group for each set: ``images`` uint8 (n, H, W, 3), ``cam``
(n, H, W) of the class that the classifier predicts, ``mask`` (n, H, W) that it gives, ``dense`` (n, H, W) labels of the
largest dense logit, ``background`` (n, H, W) its share of the dense softmax.
"""

from __future__ import annotations

import argparse

import h5py
import numpy as np
import torch
from torch import nn

from workflow_scripts.cams.maps import activation_maps
from workflow_scripts.cams.masks import foreground, pseudo_masks
from workflow_scripts.core.errors import OODError, stage
from workflow_scripts.core.files import atomic
from workflow_scripts.core.section import stage_parser
from workflow_scripts.data.images.augment import normalise
from workflow_scripts.data.images.store import Store, streamed
from workflow_scripts.models.base import Classifier, upsampled
from workflow_scripts.networks import devices
from workflow_scripts.networks.load import trained
from workflow_scripts.stages.sections.make_panels import MakePanels


@torch.inference_mode()
def panels(classifier: Classifier, network: Classifier, store: Store, section: MakePanels,
           device: torch.device) -> dict[str, np.ndarray]:
    """The arrays of one set, by name.

    Raises:
        OODError: the network has no background output.
    """
    if not hasattr(network, "background"):
        raise OODError("--checkpoint: this network has no background output; give one that method dense trained")
    step = max(1, len(store.labels) // section.images)
    pixels = store.photos()[::step][:section.images]
    x = normalise(torch.from_numpy(pixels).to(device), section.classifier_normalise)
    options = section.options
    cams, classes = activation_maps(classifier, x, None, options.scales, options.flip)
    mask = pseudo_masks(foreground(cams, options.sigma, options.threshold), classes)
    x = normalise(torch.from_numpy(pixels).to(device), section.normalise)
    maps = network.maps(x)
    both = torch.cat((network.background.weight, network.head.weight))[:, :, None, None]
    bias = torch.cat((network.background.bias, network.head.bias))
    dense = upsampled(nn.functional.conv2d(maps, both, bias), *pixels.shape[1:3])
    return {"images": pixels, **{name: tensor.cpu().numpy() for name, tensor in {
        "cam": cams, "mask": mask, "dense": dense.argmax(1), "background": dense.softmax(1)[:, 0]}.items()}}


def arguments() -> argparse.ArgumentParser:
    parser = stage_parser(__spec__, __doc__, MakePanels)
    parser.add_argument("--classifier", required=True, help="the network that made the pseudo-masks")
    parser.add_argument("--checkpoint", required=True, help="the network that was trained on them")
    parser.add_argument("--stores", required=True, nargs="+", help="sets to look at; those without images are left out")
    devices.add_arguments(parser)
    parser.add_argument("--out", required=True, help="the maps to write")
    return parser


@stage
def main(argv: list[str] | None = None) -> None:
    given = arguments().parse_args(argv)
    section: MakePanels = given.config
    device = devices.pick(given.device, given.threads, given.tf32)
    classifier, network = (trained(section.network, path, device)
                           for path in (given.classifier, given.checkpoint))
    with atomic(given.out) as partial, h5py.File(partial, "w") as file:
        for path in given.stores:
            with streamed(path) as store:
                if store.images is None:
                    continue
                arrays = panels(classifier, network, store, section, device)
            name = path.replace("\\", "/").rsplit("/", 1)[-1].removesuffix(".h5")
            for key, array in arrays.items():
                file.create_dataset(f"{name}/{key}", data=array, compression="gzip", track_times=False)
            print(f"{name}: {len(arrays['images'])} images", flush=True)


if __name__ == "__main__":
    main()
