"""One post-hoc score that needs the network itself, of every set of one network: stores -> one float64 dataset per set.

    python -m workflow_scripts.stages.score_network --config '{"score": "odin", "name": "odin",
        "options": {"epsilon": 0.004}, "network": {"name": "resnet18", "model": "resnet_cifar", "options": {}},
        "normalise": "per_image", "batch_size": 256, "sets": ["digits.test", "svhn.test"]}' --checkpoint seed0.pt
        --stores DATA/digits.test.h5 DATA/svhn.test.h5 [--train-store DATA/digits.train.h5]
        [--statistics SEED0.h5] [--choice CHOICE.json] --out scores.h5

The output is that of ``workflow_scripts.stages.score_sets``. The network is built once and images are read in
batches, so memory does not grow with a set. `--train-store` is read by scores that need ``train_labels``,
`--statistics` (class means of the ID train features) by those that need ``statistics``.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from workflow_scripts.core import plugins
from workflow_scripts.core.errors import OODError, stage
from workflow_scripts.core.files import atomic
from workflow_scripts.core.section import stage_parser
from workflow_scripts.data.images.store import Store, streamed
from workflow_scripts.models.base import Classifier
from workflow_scripts.networks import devices
from workflow_scripts.networks.forward import images_at_once, inputs
from workflow_scripts.networks.load import trained
from workflow_scripts.networks.memory import keep_freed_memory
from workflow_scripts.scores import chosen
from workflow_scripts.scores.with_network import Fitted, several
from workflow_scripts.stages.sections.score_network import ScoreNetwork


def prepared(section: ScoreNetwork, options: Any, network: Classifier, size: int, train_store: str | None,
             device: torch.device, statistics: str | None = None) -> Fitted:
    """The fitted score. Raises OODError as :class:`~workflow_scripts.scores.with_network.Fitted`."""
    return Fitted(plugins.load("scores", section.score), section.name, [options], network, section.normalise,
                  lambda store: inputs(store, section.normalise, size, device), device, train_store, statistics)


def score_set(run: Fitted, store: Store, section: ScoreNetwork, size: int,
              device: torch.device, name: str) -> np.ndarray:
    """Scores of one set, batch by batch. -> (N,) float64.

    Raises:
        OODError: a score that is not finite.
    """
    scores = np.empty(len(store.labels))
    for start, x in inputs(store, section.normalise, size, device):
        (part,) = run(x)
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
    parser.add_argument("--choice", type=Path, help="JSON of a search; what it chose replaces options of the same name")
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
    options = chosen.read(section.options, given.choice)
    run = prepared(section, options, network, size, given.train_store, device, given.statistics)
    with atomic(given.out) as partial, h5py.File(partial, "w") as out:
        out.attrs.update(score=section.score, name=section.name)
        out.attrs["options"] = json.dumps(asdict(options), sort_keys=True)
        for name, path in zip(section.sets, given.stores, strict=True):
            with several(path) as store:
                out[name] = score_set(run, store, section, size, device, name)
            print(f"{name}: {len(out[name])} images", flush=True)


if __name__ == "__main__":
    main()
