"""The section of the stage of a paper's own picture."""

from __future__ import annotations

from typing import Annotated, Any

from workflow_scripts.core.section import Section, options_of


class Network(Section):
    """One trained network that the picture shows."""

    id: str
    """The ID set."""
    network: str
    """Name of the network."""
    recipe: str
    """Path name of its recipe."""
    label: str
    """The training's name in figures."""
    seed: int
    """Seed of the training."""
    section: dict[str, Any]
    """The recipe's entry of the configuration."""
    files: dict[str, str | list[str]]
    """Paths by kind of file."""


class DrawPicture(Section):
    paper: str
    """Name of the paper."""
    name: str
    """Name of the picture's files."""
    picture: str
    """Module of `workflow_scripts/pictures`."""
    options: Annotated[Any, options_of("pictures", "picture", "options")]
    """Its options."""
    runs: list[Network]
    """The networks that it shows."""
    names: dict[str, str]
    """Printed names by key."""
