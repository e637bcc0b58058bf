"""The section of :mod:`workflow_scripts.stages.make_truth_page`."""

from __future__ import annotations

from workflow_scripts.core.section import Section


class About(Section):
    """A check in words."""

    title: str
    """Its heading."""
    source: str
    """Where its numbers are printed."""
    proves: str
    """What an agreement shows."""
    leaves_open: str
    """What it does not show."""
    images: int | None
    """Images of each set that pass through what takes long; null: all."""


class MakeTruthPage(Section):
    """The checks, in the order of the page."""

    checks: dict[str, About]
    """By the name of their table."""
    unchecked: list[dict[str, str]] = []
    """Columns of the papers without a check: paper, columns, lacks."""
    exactness: list[dict[str, str]] = []
    """How far the images are the official ones: images, equal, differs."""
