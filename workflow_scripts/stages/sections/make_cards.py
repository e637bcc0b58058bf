"""The section of the stage of the dataset cards."""

from __future__ import annotations

from workflow_scripts.core.section import Section

OUTLIERS = "outliers to train against"
"""The role of a set whose images may not be those of a test set."""


class CardOf(Section):
    """One image store."""

    name: str
    """Name of the dataset."""
    path: str
    """The store."""
    role: str
    """What it is for, such as `ID test`."""
    licence: str = ""
    """Terms of the images."""
    about: str = ""
    """What they show."""


class MakeCards(Section):
    sets: list[CardOf]
    """The stores, in the order of their cards."""
    names: dict[str, str] = {}
    """Printed names by key."""
