"""Pass pseudo-OOD copies of some ID train images through a network: checkpoint + ID train store -> features, logits.

    python -m workflow_scripts.stages.extract_pseudo_ood --config JSON --checkpoint seed0.pt \\
        --store DATA/cifar10.train.h5 --out pseudo.h5

The file is that of one set, with the number of each image in the train set, ``index`` (N,), beside it: what options of
scores are chosen with (:mod:`workflow_scripts.stages.choose_options`) without any OOD image.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import torch

from workflow_scripts.core.errors import OODError, stage
from workflow_scripts.core.files import atomic
from workflow_scripts.core.section import stage_parser
from workflow_scripts.data.images.pseudo_ood import copies, drawn
from workflow_scripts.data.images.store import Store
from workflow_scripts.models.base import Classifier
from workflow_scripts.networks import devices
from workflow_scripts.networks.forward import images_at_once, inputs
from workflow_scripts.networks.load import trained
from workflow_scripts.stages.sections.extract_pseudo_ood import ExtractPseudoOOD


@torch.inference_mode()
def extract(network: Classifier, store: Store, index: np.ndarray, section: ExtractPseudoOOD,
            device: torch.device) -> dict[str, np.ndarray]:
    """``features`` (N, D) and ``logits`` (N, K) float32 of the copies.

    Raises:
        OODError: a feature or a logit is not finite.
    """
    parts: dict[str, list[np.ndarray]] = {"features": [], "logits": []}
    options = section.options
    numbers = torch.from_numpy(index).to(device)
    for start, x in inputs(store, section.normalise, images_at_once(section, network, store, device), device):
        pseudo = copies(x, numbers[start:start + len(x)], options.pseudo_ood, options.std, options.seed)
        h = network.features(pseudo)
        z = network.head(h)
        if not (torch.isfinite(h).all() and torch.isfinite(z).all()):
            raise OODError(f"features of images {start}..{start + len(x) - 1} are not finite; the network has diverged "
                           "or the images are damaged")
        for key, value in (("features", h), ("logits", z)):
            parts[key].append(value.float().cpu().numpy())
    return {key: np.concatenate(found) for key, found in parts.items()}


@stage
def main(argv: list[str] | None = None) -> None:
    parser = stage_parser(__spec__, __doc__, ExtractPseudoOOD)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--store", required=True, help="ID train images")
    devices.add_arguments(parser)
    parser.add_argument("--out", required=True, type=Path, help="features file to write")
    args = parser.parse_args(argv)
    section: ExtractPseudoOOD = args.config
    device = devices.pick(args.device, args.threads, args.tf32)
    network = trained(section.network, args.checkpoint, device)
    store, index = drawn(args.store, section.options.images, section.options.seed)
    found = extract(network, store, index, section, device)
    with atomic(args.out) as partial, h5py.File(partial, "w") as file:
        for key, values in {**found, "labels": np.full(len(index), -1), "index": index}.items():
            file.create_dataset(key, data=values, track_times=False)
    print(f"{len(index)} copies", flush=True)


if __name__ == "__main__":
    main()
