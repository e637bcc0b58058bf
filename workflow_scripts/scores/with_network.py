"""A score that runs the network, as it is run: what it needs is read, and it is fitted, for one or several options."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from workflow_scripts.core.changes import Normalise
from workflow_scripts.core.errors import OODError
from workflow_scripts.data.images.store import Store, streamed
from workflow_scripts.scores import base, cached

PROVIDED = frozenset({"network", "train_labels", "input_std", "statistics"})
"""What a score that runs the network may read."""
Passed = Callable[[Store], Iterator[tuple[int, Tensor]]]
"""A store as network inputs: (number of the first image, (B, 3, H, W)), batch by batch."""


@contextmanager
def several(path: str) -> Iterator[Store]:
    """A streamed store of at least two images. Raises OODError when there are fewer."""
    with streamed(path) as store:
        if len(store.labels) < 2:
            raise OODError(f"{path}: it holds a single image; a score's quality cannot be measured with fewer than two")
        yield store


class Fitted:
    """A score of one network, with one or several options: a point each.

    A score that learns from ID train images passes them through the network once, with the first point's options; its
    search space may not change what it learns. Any other is fitted for each point.

    Args:
        points: the options.
        normalise: pixel values to network inputs.
        inputs: how a store becomes network inputs.
        train_store: ID train images, for scores that need ``train_labels``.
        statistics: class means of the ID train features, for scores that need them.
        without: numbers of ID train images that are left out; ``None``: none.

    Raises:
        OODError: the score needs train images or class means and there are none, they are of another task, or the
            first point's options do not fit the network.
    """

    def __init__(self, module: ModuleType, name: str, points: Sequence[Any], network: nn.Module, normalise: Normalise,
                 inputs: Passed, device: torch.device, train_store: str | None = None, statistics: str | None = None,
                 without: np.ndarray | None = None):
        self.module, self.name, self.points, self.network = module, name, list(points), network
        self.kinds = frozenset().union(*(base.needs(module, options) for options in points))
        if "network" not in self.kinds:
            raise OODError(f"score '{name}' does not need the network; run workflow_scripts.stages.score_sets on its "
                           "features")
        if self.kinds - PROVIDED:
            raise OODError(f"score '{name}' needs {', '.join(sorted(self.kinds - PROVIDED))} besides the network, "
                           f"which this stage does not read; it provides {', '.join(sorted(PROVIDED))}")
        self.known = self._known(normalise, statistics, device)
        if "train_labels" in self.kinds:
            if train_store is None:
                raise OODError(f"--train-store: score '{name}' needs the ID train images; give their store")
            self.states = [self._learned(train_store, inputs, device, without)] * len(self.points)
        else:
            self.states = [self._state(options, iter(())) for options in self.points]

    def __call__(self, x: Tensor) -> np.ndarray:
        """Scores of network inputs. (B, 3, H, W) -> (P, B) float64, a row for each point."""
        if hasattr(self.module, "scores"):
            found = self.module.scores(self.points, self.known, self.states, self.network, x)
        else:
            found = torch.stack([self.module.score(options, self.known, state, self.network, x)
                                 for options, state in zip(self.points, self.states, strict=True)])
        return found.cpu().numpy()

    def _known(self, normalise: Normalise, statistics: str | None, device: torch.device) -> base.Known:
        known = base.Known()
        if "input_std" in self.kinds:
            if isinstance(normalise, str):
                raise OODError(f"score '{self.name}' divides by the standard deviation of each channel, and normalise "
                               f"is {normalise}, which has none; leave by_std out")
            known = replace(known, input_std=normalise.std)
        if "statistics" in self.kinds:
            if statistics is None:
                raise OODError(f"--statistics: score '{self.name}' needs the class means of the ID train features; "
                               "give their file")
            read = cached.statistics(Path(statistics), tuple(self.network.head.weight.shape))
            known = replace(known, statistics=base.moved(read, lambda array: torch.from_numpy(array).to(device)))
        return known

    def _state(self, options: Any, batches: Iterator[tuple[Tensor, Tensor]]) -> Any:
        """What is learned of (inputs, labels) of the ID train images."""
        if not hasattr(self.module, "fit"):
            return None
        return self.module.fit(options, self.known, self.network, batches)

    def _learned(self, path: str, inputs: Passed, device: torch.device, without: np.ndarray | None) -> Any:
        with several(path) as store:
            classes = self.network.head.out_features
            if store.labels.min() < 0 or store.labels.max() >= classes:
                raise OODError(f"{path}: labels {store.labels.min()}..{store.labels.max()}, but the checkpoint has "
                               f"{classes} classes; the two belong to different ID sets")
            kept = np.ones(len(store.labels), bool)
            kept[without if without is not None else []] = False
            self.known = replace(self.known, train_labels=store.labels[kept])
            labels, rows = torch.from_numpy(store.labels).to(device), torch.from_numpy(kept).to(device)

            def batches() -> Iterator[tuple[Tensor, Tensor]]:
                for start, x in inputs(store):
                    places = slice(start, start + len(x))
                    if without is None:
                        yield x, labels[places]
                    elif rows[places].any():
                        yield x[rows[places]], labels[places][rows[places]]

            return self._state(self.points[0], batches())
