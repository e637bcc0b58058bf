"""Choose options of a score that runs the network among those that its declaration names, without any test image.

checkpoint + stores of an ID set and of OOD sets, or the ID train images, of some of which pseudo-OOD copies are made ->
a table of AUROC and FPR95 at each point, and the choice:

    python -m workflow_scripts.stages.choose_network_options --config '{"score": "odin", "id": "cifar10_val.test",
        "sets": ["cifar10_val.test", "tin_val.test"], "network": {"name": "resnet18", "model": "resnet_cifar",
        "options": {}}, "normalise": "per_image", "batch_size": 256}' --checkpoint seed0.pt
        --stores DATA/cifar10_val.test.h5 DATA/tin_val.test.h5 --csv odin.csv --json odin.json

Each batch of images is read once for all points, which share the passes of the network that they can. Points that the
network is too small for are left out. What counts as best: :mod:`workflow_scripts.stages.choose_options`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workflow_scripts.core import plugins
from workflow_scripts.core.errors import OODError, stage
from workflow_scripts.core.section import stage_parser
from workflow_scripts.data.images.pseudo_ood import copies, drawn
from workflow_scripts.data.images.store import Store, streamed
from workflow_scripts.models.base import Classifier
from workflow_scripts.networks import devices
from workflow_scripts.networks.forward import images_at_once, inputs
from workflow_scripts.networks.load import trained
from workflow_scripts.networks.memory import keep_freed_memory
from workflow_scripts.scores import search
from workflow_scripts.scores.with_network import Fitted, several
from workflow_scripts.stages.sections.choose_network_options import ChooseNetworkOptions


class Trial:
    """A score on fixed images, as a function of its options.

    Args:
        given: the stage's arguments.
    """

    def __init__(self, section: ChooseNetworkOptions, given: argparse.Namespace, network: Classifier, size: int,
                 device: torch.device):
        self.section, self.given, self.network, self.size, self.device = section, given, network, size, device
        self.module, self.needs = plugins.load("scores", section.score), plugins.spec("scores", section.score).needs
        self.numbers = None
        if section.copies:
            self.drawn, self.numbers = drawn(given.train_store, section.copies.images, section.copies.seed)

    def measure(self, points: Sequence[Any]) -> list[search.Found]:
        """How good each of these options is, or that the network is too small for them."""
        fitting, found = self._fitting(points)
        parts: dict[str, list[np.ndarray]] = {}
        if fitting:
            run = self._fitted([points[place] for place in fitting])
            for name, x in self._images():
                parts.setdefault(name, []).append(run(x))
        sets = {name: np.concatenate(rows, axis=1) for name, rows in parts.items()}
        for row, place in enumerate(fitting):
            id, *others = (scores[row] for scores in sets.values())
            try:
                found[place] = search.quality(id, others)
            except OODError as error:
                found[place] = error
        return [found[place] for place in range(len(points))]

    def _fitting(self, points: Sequence[Any]) -> tuple[list[int], dict[int, search.Found]]:
        """Places of the points that two images can be scored with, and what hinders the others."""
        _, x = next(self._images())
        fitting: list[int] = []
        found: dict[int, search.Found] = {}
        for place, options in enumerate(points):
            try:
                if "train_labels" not in self.needs:  # else fitted once, for all
                    self._fitted([options])(x[:2])
                fitting.append(place)
            except OODError as error:
                found[place] = error
        return fitting, found

    def _fitted(self, points: list[Any]) -> Fitted:
        section = self.section
        return Fitted(self.module, section.name, points, self.network, section.normalise, self._inputs, self.device,
                      self.given.train_store, self.given.statistics, self.numbers)

    def _images(self) -> Iterator[tuple[str, Tensor]]:
        """Network inputs batch by batch with the name of their set; the first is the ID set."""
        section = self.section
        if section.copies:
            assert self.numbers is not None  # set with the copies
            index = torch.from_numpy(self.numbers).to(self.device)
            for start, x in self._inputs(self.drawn):
                yield "id", x
                yield "copies", copies(x, index[start:start + len(x)], section.copies.pseudo_ood, section.copies.std,
                                       section.copies.seed)
            return
        stores = dict(zip(section.sets, self.given.stores, strict=True))
        for name in sorted(stores, key=lambda name: name != section.id):
            with several(stores[name]) as store:
                for _, x in self._inputs(store):
                    yield name, x

    def _inputs(self, store: Store) -> Iterator[tuple[int, Tensor]]:
        return inputs(store, self.section.normalise, self.size, self.device)


def check(section: ChooseNetworkOptions, given: argparse.Namespace) -> None:
    """Refuse images that do not go with the configuration. Raises OODError."""
    if len(section.sets) != len(given.stores):
        raise OODError(f"--stores: {len(section.sets)} sets need as many stores, found {len(given.stores)}")
    if section.copies:
        if section.sets or given.train_store is None:
            raise OODError("--train-store: copies are made of the ID train images; give their store, and no --stores")
    elif section.id not in section.sets:
        raise OODError(f"--stores: the configuration asks for {section.id}, the sets are {', '.join(section.sets)}")
    elif len(section.sets) < 2:
        raise OODError("--stores: no OOD set; expected at least one")


@stage
def main(argv: list[str] | None = None) -> None:
    parser = stage_parser(__spec__, __doc__, ChooseNetworkOptions)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--stores", nargs="*", default=[], help="stores, in the order of the config's sets")
    parser.add_argument("--train-store", help="ID train images, for copies and for scores that need train_labels")
    parser.add_argument("--statistics", help="class means of the ID train features, for scores that need statistics")
    devices.add_arguments(parser)
    parser.add_argument("--csv", type=Path, required=True, help="table of all points to write")
    parser.add_argument("--json", type=Path, required=True, help="choice to write")
    given = parser.parse_args(argv)
    section: ChooseNetworkOptions = given.config
    space = search.declared(plugins.spec("scores", section.score).space, section.name)
    check(section, given)
    device = devices.pick(given.device, given.threads, given.tf32)
    if device.type == "cpu":
        keep_freed_memory()
    network = trained(section.network, given.checkpoint, device)
    with streamed(given.stores[0] if given.stores else given.train_store) as store:
        size = images_at_once(section, network, store, device)
    trial = Trial(section, given, network, size, device)
    rows = search.rows(trial.measure, section.options, space, section.at_most, section.criterion)
    print(search.write(rows, section.options, space, section.name, section.criterion, given.csv, given.json),
          flush=True)


if __name__ == "__main__":
    main()
