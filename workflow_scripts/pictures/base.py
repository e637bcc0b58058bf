"""What a picture offers: a module in this folder with

``NEEDS``
    kinds of files it reads for each network, a literal frozenset out of :data:`KINDS`;
``SCOPE``
    ``"one"``: drawn of the first network (ID set, architecture, recipe, seed) that the configuration names for it;
    ``"all"``: of all of them;
``Options``
    a frozen standard dataclass with a docstring below each field;
``draw(options, runs, names) -> Drawing``
    ``runs`` are :class:`Run`, ``names`` printed names by key. No torch: what needs a network is made by a stage before.

A picture becomes ``figures/{paper}/{name}.{svg,png,json}``; the JSON holds its facts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from matplotlib.figure import Figure

KINDS = {
    "record": "training record: history, and what the method learned",
    "checkpoint": "weights",
    "outliers": "store of the images trained against",
    "selection": "numbers of the outliers that were kept",
    "distances": "divergence of the outliers under the parent network",
    "metrics": "metrics of all scores",
    "scores": "scores of the ID test set and the OOD sets, a list",
    "panels": "a few images of each set with their activation, label and dense maps",
    "train": "ID train store",
    "test": "ID test store",
    "ood": "stores of the OOD sets, a list",
    "train_features": "features of the ID train images",
    "test_features": "features of the ID test images",
    "ood_features": "features of the OOD sets, a list of files (scores.cached.sets says what they hold)",
}


@dataclass(frozen=True)
class Run:
    """One trained network and its files."""

    id: str
    network: str
    recipe: str
    """Path name."""
    label: str
    seed: int
    section: dict[str, Any]
    """The recipe's entry of the configuration."""
    files: dict[str, Any]
    """Path by kind."""


@dataclass(frozen=True)
class Drawing:
    """A finished picture."""

    figure: Figure
    title: str
    caption: str
    facts: dict[str, Any] = field(default_factory=dict)
    """Numbers behind it, plain values."""
