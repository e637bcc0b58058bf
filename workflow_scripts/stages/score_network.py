"""One post-hoc score that needs the network itself, of every set of one network: stores -> one float64 dataset per set.

    python -m workflow_scripts.stages.score_network --config '{"score": "odin", "name": "odin",
        "options": {"epsilon": 0.004}, "network": {"name": "resnet18", "model": "resnet_cifar", "options": {}},
        "normalise": "per_image", "batch_size": 256, "sets": ["digits.test", "svhn.test"]}' --checkpoint seed0.pt
        --stores DATA/digits.test.h5 DATA/svhn.test.h5 [--train-store DATA/digits.train.h5]
        [--statistics SEED0.h5] --out scores.h5

The output is that of ``workflow_scripts.stages.score_sets``. The network is built once and images are read in
batches, so memory does not grow with a set. `--train-store` is read by scores that need ``train_labels``,
`--statistics` (class means of the ID train features) by those that need ``statistics``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from workflow_scripts.core import plugins
from workflow_scripts.core.changes import Normalise
from workflow_scripts.core.errors import OODError, stage
from workflow_scripts.core.files import atomic
from workflow_scripts.core.section import stage_parser
from workflow_scripts.data.images.store import Store, streamed
from workflow_scripts.models.base import Classifier
from workflow_scripts.networks import devices
from workflow_scripts.networks.forward import images_at_once, inputs
from workflow_scripts.networks.load import trained
from workflow_scripts.networks.memory import keep_freed_memory
from workflow_scripts.scores import base, cached
from workflow_scripts.stages.sections.score_network import ScoreNetwork

PROVIDED = frozenset({"network", "train_labels", "input_std", "statistics"})


@contextmanager
def several(path: str) -> Iterator[Store]:
    """A streamed store of at least two images. Raises OODError when there are fewer."""
    with streamed(path) as store:
        if len(store.labels) < 2:
            raise OODError(f"{path}: it holds a single image; a score's quality cannot be measured with fewer than two")
        yield store


def train_batches(store: Store, how: Normalise, size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Network inputs (B, 3, H, W) and labels (B,) of the ID train images, in order."""
    labels = torch.from_numpy(store.labels).to(device)
    for start, x in inputs(store, how, size, device):
        yield x, labels[start:start + len(x)]


def prepared(section: ScoreNetwork, network: Classifier, size: int, train_store: str | None, device: torch.device,
             statistics: str | None = None) -> Callable[[Tensor], np.ndarray]:
    """The fitted score as a function of a batch of network inputs. (B, 3, H, W) -> (B,).

    Raises:
        OODError: the score needs train images or class means and there are none, or they are of another task.
    """
    module, name, options = plugins.load("scores", section.score), section.name, section.options
    kinds = base.needs(module, options)
    if "network" not in kinds:
        raise OODError(f"score '{name}' does not need the network; run "
                       "workflow_scripts.stages.score_sets on its features")
    if kinds - PROVIDED:
        raise OODError(f"score '{name}' needs {', '.join(sorted(kinds - PROVIDED))} besides the network, which this "
                       f"stage does not read; it provides {', '.join(sorted(PROVIDED))}")
    known, state = base.Known(), None
    if "input_std" in kinds:
        if isinstance(section.normalise, str):
            raise OODError(f"score '{name}' divides by the standard deviation of each channel, and normalise is "
                           f"{section.normalise}, which has none; leave by_std out")
        known = replace(known, input_std=section.normalise.std)
    if "statistics" in kinds:
        if statistics is None:
            raise OODError(f"--statistics: score '{name}' needs the class means of the ID train features; give their "
                           "file")
        read = cached.statistics(Path(statistics), tuple(network.head.weight.shape))
        known = replace(known, statistics=base.moved(read, lambda array: torch.from_numpy(array).to(device)))
    if "train_labels" in kinds:
        if train_store is None:
            raise OODError(f"--train-store: score '{name}' needs the ID train images; give their store")
        with several(train_store) as store:
            classes = network.head.out_features
            if store.labels.min() < 0 or store.labels.max() >= classes:
                raise OODError(f"{train_store}: labels {store.labels.min()}..{store.labels.max()}, but the checkpoint "
                               f"has {classes} classes; the two belong to different ID sets")
            known = replace(known, train_labels=store.labels)
            state = module.fit(options, known, network, train_batches(store, section.normalise, size, device))
    elif hasattr(module, "fit"):
        state = module.fit(options, known, network, iter(()))
    return lambda x: module.score(options, known, state, network, x).cpu().numpy()


def score_set(run: Callable[[Tensor], np.ndarray], store: Store, section: ScoreNetwork, size: int,
              device: torch.device, name: str) -> np.ndarray:
    """Scores of one set, batch by batch. -> (N,) float64.

    Raises:
        OODError: a score that is not finite.
    """
    scores = np.empty(len(store.labels))
    for start, x in inputs(store, section.normalise, size, device):
        part = run(x)
        if not np.isfinite(part).all():
            raise OODError(f"score '{section.name}' of set '{name}' is NaN or infinite for image "
                           f"{start + int(np.argmin(np.isfinite(part)))}; the network has diverged or the images are "
                           "damaged: look at the checkpoint")
        scores[start:start + len(x)] = part
    return scores


def arguments() -> argparse.ArgumentParser:
    parser = stage_parser(__spec__, __doc__, ScoreNetwork)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--stores", required=True, nargs="+", help="stores, in the order of the config's sets")
    parser.add_argument("--train-store", help="store of the ID train images, for scores that need train_labels")
    parser.add_argument("--statistics", help="class means of the ID train features, for scores that need statistics")
    devices.add_arguments(parser)
    parser.add_argument("--out", required=True, help="the scores to write")
    return parser


@stage
def main(argv: list[str] | None = None) -> None:
    given = arguments().parse_args(argv)
    section: ScoreNetwork = given.config
    if len(section.sets) != len(given.stores):
        raise OODError(f"--stores: {len(section.sets)} sets need as many stores, found {len(given.stores)}")
    device = devices.pick(given.device, given.threads, given.tf32)
    if device.type == "cpu":
        keep_freed_memory()
    network = trained(section.network, given.checkpoint, device)
    with streamed(given.stores[0]) as store:
        size = images_at_once(section, network, store, device)
    run = prepared(section, network, size, given.train_store, device, given.statistics)
    with atomic(given.out) as partial, h5py.File(partial, "w") as out:
        out.attrs.update(score=section.score, name=section.name)
        out.attrs["options"] = json.dumps(asdict(section.options), sort_keys=True)
        for name, path in zip(section.sets, given.stores, strict=True):
            with several(path) as store:
                out[name] = score_set(run, store, section, size, device, name)
            print(f"{name}: {len(out[name])} images", flush=True)


if __name__ == "__main__":
    main()
