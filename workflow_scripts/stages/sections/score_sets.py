"""The section of :mod:`workflow_scripts.stages.score_sets`."""

from __future__ import annotations

from workflow_scripts.stages.sections.scored import Scored


class ScoreSets(Scored):
    """A score of cached features."""

    network: str = ""
    """Name of the network, for messages."""
    sets: list[str] | None = None
    """Sets that the files should hold; left out: any."""
