"""The section of :mod:`workflow_scripts.stages.compare_sets`."""

from __future__ import annotations

from typing import Literal

from workflow_scripts.core.section import Section


class Compared(Section):
    """A set, and what it is for."""

    name: str
    """{dataset}.{split}."""
    use: Literal["train", "test", "ood", "validation"]
    """ID train images, ID test images, an OOD set, or images that options are chosen with."""


class CompareSets(Section):
    """An ID set, and the sets that its networks are tested with."""

    sets: list[Compared]
    """In the order of --stores; the first are the ID train images."""
    least: dict[str, int] = {}
    """Score -> ID train images that it needs: neighbours, or what it is fitted to."""
