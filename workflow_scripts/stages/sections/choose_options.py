"""The section of :mod:`workflow_scripts.stages.choose_options`."""

from __future__ import annotations

from workflow_scripts.stages.sections.searched import Searched


class ChooseOptions(Searched):
    """A score of cached features whose options are chosen."""

    network: str = ""
    """Name of the network, for messages."""
