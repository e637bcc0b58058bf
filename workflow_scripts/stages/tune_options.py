"""Tune options of a score without any OOD image: ID images against pseudo-OOD made from them.

HIMPLoS's p and lambda (`clip`), or K of KNN (with `--train`, the ID train features, in place of `--statistics`).

checkpoint + ID store + statistics -> a table of AUROC and FPR95 over the grid, and the choice:

    python -m workflow_scripts.stages.tune_options --config '{"network": {"name": "resnet18", "model":
    "resnet_cifar", "options": {}},
        "normalise": "per_image", "batch_size": 256, "options": {"pseudo_ood": "noise", "std": 0.3}}'
        --checkpoint seed0.pt --store DATA/cifar10.train.h5 --statistics SEED0.h5 --csv sweep.csv --json choice.json

The store holds ID images that are not test images: held out from training, or the train images themselves. Pseudo-OOD
is each image with Gaussian noise added to the network input (released tuning), or its 3x3 jigsaw. Both are passed
through the network once; every point of the grid is arithmetic on the features. ``statistics`` is what
``workflow_scripts.stages.precompute_statistics`` writes. AUROC and FPR95 have ID as positive.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workflow_scripts.core import plugins
from workflow_scripts.core.errors import OODError, stage, unknown
from workflow_scripts.core.files import atomic
from workflow_scripts.core.section import stage_parser
from workflow_scripts.data.images.pseudo_ood import copies, spaced
from workflow_scripts.data.images.store import Store
from workflow_scripts.metrics.ood import auroc, curve, fpr95
from workflow_scripts.models.base import Classifier
from workflow_scripts.networks import devices
from workflow_scripts.networks.forward import images_at_once, inputs
from workflow_scripts.networks.load import trained
from workflow_scripts.scores import cached
from workflow_scripts.scores.base import Batch, Head, Known, moved
from workflow_scripts.stages.sections.tune_options import Sweep, TuneOptions

NUMBERS = ("auroc", "fpr95", "n_id", "n_pseudo")
ROWS = 4096  # images scored at once


@torch.inference_mode()
def extract(network: Classifier, store: Store, section: TuneOptions, device: torch.device) -> tuple[Tensor, Tensor]:
    """Features of the images and of their pseudo-OOD copies, (N, D) each.

    Raises:
        OODError: a feature is not finite.
    """
    clean, changed, options = [], [], section.options
    size = images_at_once(section, network, store, device)
    for start, x in inputs(store, section.normalise, size, device):
        index = torch.arange(start, start + len(x), device=device)
        pseudo = copies(x, index, options.pseudo_ood, options.std, options.seed)
        clean.append(network.features(x))
        changed.append(network.features(pseudo))
        if not (torch.isfinite(clean[-1]).all() and torch.isfinite(changed[-1]).all()):
            raise OODError(f"features of images {start}..{start + len(x) - 1} are not finite; the network has diverged "
                           "or the images are damaged")
    return torch.cat(clean), torch.cat(changed)


def grid(score: str, options: Sweep, known: Known, clean: Tensor, pseudo: Tensor) -> Iterator[dict[str, Any]]:
    """A row of the table for each point, the last option fastest: the score of cached features, ID positive."""
    module, names = plugins.load("scores", score), plugins.spec("scores", score).tune
    for values in product(*(getattr(options, name) for name in names)):
        point = module.Options(**dict(zip(names, values, strict=True)))
        state = module.fit(point, known) if hasattr(module, "fit") else None
        yield {**dict(zip(names, values, strict=True)),
               **compared(*(scored(module, point, known, state, part) for part in (clean, pseudo)))}


def scored(module: ModuleType, point: Any, known: Known, state: Any, features: Tensor) -> np.ndarray:
    """Scores of cached features, block by block. (N, D) -> (N,)."""
    return np.concatenate([module.score(point, known, state, Batch(features=rows)).cpu().numpy()
                           for rows in features.split(ROWS)])


def compared(clean: np.ndarray, pseudo: np.ndarray) -> dict[str, Any]:
    """The numbers of a point: scores of images and of pseudo-OOD, ID positive."""
    joined = curve(clean, pseudo)
    return {"auroc": auroc(joined), "fpr95": fpr95(joined), "n_id": len(clean), "n_pseudo": len(pseudo)}


def neighbours(score: str, options: Sweep, train: Tensor, clean: Tensor, pseudo: Tensor) -> Iterator[dict[str, Any]]:
    """A row of the table for each value of an option that counts train images (M, D), such as KNN's K.

    The images are train images; the score's ``among_train`` gives the options by which it does not find them.

    Raises:
        OODError: no value is below the number of train features.
    """
    module, (name,) = plugins.load("scores", score), plugins.spec("scores", score).tune
    tried = getattr(options, name)
    fitting = [value for value in tried if len(train) > value]
    if not fitting:
        raise OODError(f"sweep.{name}: the smallest is {min(tried)}, but there are only {len(train)} ID train "
                       "features; choose smaller ones")
    points = [module.Options(**{name: value}) for value in fitting]
    bank = module.fit(module.Options(**{name: 1}), Known(train_features=train))
    for value, point in zip(fitting, points, strict=True):
        yield {name: value, **compared(scored(module, module.among_train(point), Known(), bank, clean),
                                       scored(module, point, Known(), bank, pseudo))}


def best(rows: list[dict[str, Any]], criterion: str) -> dict[str, Any]:
    """The row of the choice: best by ``criterion``, then by the other number, then the least K, mask and clipping."""
    def rank(row: dict[str, Any]) -> tuple[float, ...]:
        numbers = (-row["auroc"], row["fpr95"])
        first = row.get("p", row.get("K", 0))
        return (*(numbers if criterion == "auroc" else numbers[::-1]), first, -row.get("clip", 0))
    return min(rows, key=rank)


def evidence(network: Classifier, path: str, device: torch.device) -> Known:
    """Head and prototypes. Raises OODError when the statistics are of another network."""
    head = network.head
    statistics = cached.statistics(Path(path), tuple(head.weight.shape))
    return Known(head=Head(head.weight.detach(), head.bias.detach()),
                 statistics=moved(statistics, lambda array: torch.from_numpy(array).to(device)))


def arguments() -> argparse.ArgumentParser:
    parser = stage_parser(__spec__, __doc__, TuneOptions)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--store", required=True, help="ID images that are not test images")
    parser.add_argument("--statistics", help="class means of the ID train features, for HIMPLoS")
    parser.add_argument("--train", help="ID train features, for KNN")
    parser.add_argument("--csv", required=True, help=f"table to write: p, clip (or K), {', '.join(NUMBERS)}")
    parser.add_argument("--json", required=True, help="choice to write: p, clip (or K), their numbers, the options")
    devices.add_arguments(parser)
    return parser


@stage
def main(argv: list[str] | None = None) -> None:
    given = arguments().parse_args(argv)
    section: TuneOptions = given.config
    options = section.options
    spec = plugins.spec("scores", section.score)
    if not spec.tune:
        tunable = [name for name in plugins.names("scores") if plugins.spec("scores", name).tune]
        raise unknown("--config.score", section.score, tunable)
    source = "train" if "train_features" in spec.needs else "statistics"
    if getattr(given, source) is None:
        raise OODError(f"--{source}: options of {section.score} are chosen with it; give the file")
    device = devices.pick(given.device, given.threads, given.tf32)
    network = trained(section.network, given.checkpoint, device)
    store = spaced(given.store, options.images)
    clean, pseudo = extract(network, store, section, device)
    if source == "train":
        with cached.Features(Path(given.train)) as file:
            train = torch.from_numpy(file.whole("features")).to(device)
        rows = list(neighbours(section.score, options, train, clean, pseudo))
    else:
        known = evidence(network, given.statistics, device)
        rows = list(grid(section.score, options, known, clean, pseudo))
    choice = best(rows, options.criterion)
    with atomic(given.csv) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    with atomic(given.json) as partial:
        partial.write_text(json.dumps({**choice, "options": options.model_dump()}, indent=1, sort_keys=True) + "\n")
    print(f"{', '.join(f'{key} = {choice[key]}' for key in spec.tune)}: "
          f"AUROC {choice['auroc']:.4f}, FPR95 {choice['fpr95']:.4f} "
          f"({len(clean)} images, {len(rows)} points)")


if __name__ == "__main__":
    main()
