"""What a paper claims, as a configuration writes it and the page reads it."""

from __future__ import annotations

from workflow_scripts.core.section import Section


class Row(Section):
    """A row of a paper's table."""

    recipe: str
    """A training of its experiments."""
    score: str
    """A score of them."""


class Claim(Section):
    """What a paper claims, and the two rows that show how much of it this run has."""

    says: str
    """The claim, in a sentence of your own."""
    ours: Row
    """The paper's row."""
    baseline: Row
    """What it is held against."""
