"""The section of the stage of the reliability figures."""

from __future__ import annotations

from workflow_scripts.core.section import Section


class Confidences(Section):
    """One trained network whose confidences are drawn."""

    id: str
    """The ID set."""
    network: str
    """Name of the network."""
    label: str
    """The training's name in figures."""
    seed: int
    """Seed of the training."""
    sets: list[str]
    """OOD sets."""
    scores: str
    """Path of the score file."""
    features: str
    """Path of the ID test features."""


class DrawReliability(Section):
    paper: str
    """Name of the paper."""
    score: str
    """The score that is the confidence."""
    probability: bool = False
    """Whether exp of that score is a probability."""
    runs: list[Confidences]
    """The networks; one whose files are not there is left out."""
    names: dict[str, str] = {}
    """Printed names by key."""
