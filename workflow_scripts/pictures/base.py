"""What a picture offers: a module in this folder with

``SPEC``
    a :class:`~workflow_scripts.core.specs.PictureSpec`: kinds of files it reads for each network, and whether it is
    drawn of the first network (ID set, architecture, recipe, seed) that the configuration names for it, or of all;
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
