"""Pass every image of a list of sets through a trained network once: stores -> features, logits, head.

    python -m workflow_scripts.stages.extract_features --config JSON --checkpoint seed0.pt \\
        --stores DATA/digits.test.h5 DATA/faces.test.h5 DATA/grass.test.h5 --out digits.test.h5 ood.h5

A set goes into the file of its name; all others go into the one file of another name, in a group each.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
import torch

from workflow_scripts.core.errors import OODError, stage
from workflow_scripts.core.files import atomic
from workflow_scripts.core.section import stage_parser
from workflow_scripts.data.class_names import same_classes
from workflow_scripts.data.images.augment import normalise
from workflow_scripts.data.images.jigsaw import jigsaw
from workflow_scripts.data.images.store import Store, open_store, streamed
from workflow_scripts.models.base import Classifier
from workflow_scripts.networks import checkpoint, devices
from workflow_scripts.networks.forward import images_at_once, inputs, penultimate
from workflow_scripts.networks.load import trained
from workflow_scripts.networks.memory import keep_freed_memory
from workflow_scripts.stages.sections.extract_features import ExtractFeatures

SHUFFLED = 2000  # ID train images


def arguments() -> argparse.ArgumentParser:
    parser = stage_parser(__spec__, __doc__, ExtractFeatures)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--stores", required=True, nargs="+", help="stores, in the order of the config's sets")
    parser.add_argument("--out", required=True, nargs="+", help="a features file for each set, or for several")
    parser.add_argument("--head", help="file for the head (and the last batch norm)")
    devices.add_arguments(parser)
    return parser


@stage
def main(argv: list[str] | None = None) -> None:
    args = arguments().parse_args(argv)
    section: ExtractFeatures = args.config
    if len(section.sets) != len(args.stores):
        raise OODError(f"{len(section.sets)} sets need as many --stores, found {len(args.stores)}")
    files = divided(section.sets, args.out)
    device = devices.pick(args.device, args.threads, args.tf32)
    if section.precision == "bfloat16":
        devices.check_bfloat16(device, "features.precision")
    if device.type == "cpu":
        keep_freed_memory()
    network = trained(section.network, args.checkpoint, device)
    with streamed(args.stores[0]) as store:
        size = images_at_once(section, network, store, device)
    sources = dict(zip(section.sets, args.stores, strict=True))
    check_classes(args.checkpoint, sources)
    for target, names in files.items():
        with atomic(target) as partial, h5py.File(partial, "w", track_order=False) as file:
            for name in names:
                with streamed(sources[name]) as store:
                    extract(network, store, section, size, device, name,
                            file if stem(target) == name else file.create_group(name))
                print(f"{name}: {len(store.labels)} images", flush=True)
    if args.head:
        write_head(network, args.head)


def check_classes(path: str, stores: Mapping[str, str]) -> None:
    """The ID set's splits have the classes of the network, by name; the ID set alone is here with its train images.

    Raises:
        OODError: others, or in another order.
    """
    ids = {name.removesuffix(".train") for name in stores if name.endswith(".train")}
    trained_on = checkpoint.read(path)["about"]["classes"] if ids else []
    for name, store in stores.items():
        if name.rpartition(".")[0] in ids:
            with open_store(store) as file:
                same_classes(trained_on, json.loads(file.attrs["classes"]), f"checkpoint {path}", f"set '{name}'")


def stem(path: str) -> str:
    """A file's name without its suffix."""
    return Path(path).stem


def divided(sets: Sequence[str], files: Sequence[str]) -> dict[str, list[str]]:
    """File -> the sets that it holds.

    Raises:
        OODError: a set twice, a set without a file or a file without a set, or several files that are no set's.
    """
    others = [path for path in files if stem(path) not in sets]
    found = {path: [name for name in sets if stem(path) == name] for path in files if path not in others}
    rest = [name for name in sets if name not in map(stem, found)]
    if len(set(sets)) < len(sets) or len(found) + len(others) < len(files):
        raise OODError(f"--out: a set or a file is given twice: {', '.join([*sets, *files])}")
    if len(others) != bool(rest):
        raise OODError(f"--out: {len(rest)} sets without a file of their name ({', '.join(rest) or 'none'}) need "
                       f"{'one other file' if rest else 'no other file'}, found {', '.join(others) or 'none'}")
    return found | ({others[0]: rest} if rest else {})


@torch.inference_mode()
def extract(network: Classifier, store: Store, section: ExtractFeatures, size: int, device: torch.device, name: str,
            file: h5py.Group) -> None:
    """Write ``features`` (N, D) and ``logits`` (N, K) float32 and ``labels`` of one set, batch by batch.

    A network with a background output adds its logit, ``background`` (N,), and for the ID train set those of some of
    its images with their cells in random order: ``shuffled/logits`` (M, K) and ``shuffled/background`` (M,).

    Raises:
        OODError: a feature or logit is not finite.
    """
    count, background = len(store.labels), getattr(network, "background", None)
    for start, x in inputs(store, section.normalise, size, device):
        h = penultimate(network, x, section.precision)
        z = network.head(h)
        if not (torch.isfinite(h).all() and torch.isfinite(z).all()):
            raise OODError(f"set '{name}': features of images {start}..{start + len(x) - 1} are not finite; "
                           "the network has diverged or the images are damaged")
        if not start:
            for key, width in (("features", h.shape[1]), ("logits", z.shape[1])):
                file.create_dataset(key, (count, width), np.float32, track_times=False)
            if background is not None:
                file.create_dataset("background", (count,), np.float32, track_times=False)
        file["features"][start:start + len(x)] = h.float().cpu().numpy()
        file["logits"][start:start + len(x)] = z.float().cpu().numpy()
        if background is not None:
            file["background"][start:start + len(x)] = background(h)[:, 0].float().cpu().numpy()
    file.create_dataset("labels", data=store.labels, track_times=False)
    if background is not None and name.endswith(".train"):
        for key, array in shuffled(network, store, section, size, device).items():
            file.create_dataset(f"shuffled/{key}", data=array, track_times=False)


def shuffled(network: Classifier, store: Store, section: ExtractFeatures, size: int, device: torch.device,
             ) -> dict[str, np.ndarray]:
    """``logits`` (M, K) and ``background`` (M,) of at most :data:`SHUFFLED` images, evenly spaced, as jigsaws."""
    step = -(-len(store.labels) // SHUFFLED)
    numbers = np.arange(0, len(store.labels), step)
    parts = []
    for start in range(0, len(numbers), size):
        rows = numbers[start:start + size]
        x = normalise(torch.from_numpy(store.photos()[rows[0]:rows[-1] + 1:step]).to(device), section.normalise)
        h = penultimate(network, jigsaw(x, 0, torch.from_numpy(rows).to(device)), section.precision)
        parts.append((network.head(h), network.background(h)[:, 0]))
    logits, background = (torch.cat(part).float().cpu().numpy() for part in zip(*parts, strict=True))
    return {"logits": logits, "background": background}


def write_head(network: Classifier, target: str) -> None:
    """Write the head's ``weight`` (K, D), ``bias`` (K,), and the last batch norm's ``bn_weight``, ``bn_bias`` (D,)."""
    arrays = {"weight": network.head.weight, "bias": network.head.bias}
    if network.last_batchnorm is not None:
        arrays |= {"bn_weight": network.last_batchnorm.weight, "bn_bias": network.last_batchnorm.bias}
    with atomic(target) as partial, h5py.File(partial, "w") as file:
        for key, tensor in arrays.items():
            file.create_dataset(key, data=tensor.detach().cpu().numpy(), track_times=False)


if __name__ == "__main__":
    main()
