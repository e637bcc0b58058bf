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


class Unchecked(Section):
    """Columns of a paper's tables without a check."""

    paper: str
    """Of which paper."""
    columns: str
    """Which."""
    lacks: str
    """What is missing for a check."""


class MakeTruthPage(Section):
    """The checks, in the order of the page."""

    checks: dict[str, About]
    """By the name of their table."""
    unchecked: list[Unchecked] = []
    """Columns without a check, of the papers that are reproduced here."""
