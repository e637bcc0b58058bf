"""The section of :mod:`workflow_scripts.stages.make_masks`."""

from __future__ import annotations

from pydantic import Field

from workflow_scripts.cams.options import MaskOptions
from workflow_scripts.core.changes import Normalise
from workflow_scripts.core.section import Section
from workflow_scripts.networks.architecture import Network


class MakeMasks(Section):
    """The classifier, and how its activation becomes pseudo-masks."""

    network: Network
    """Architecture of the checkpoint."""
    normalise: Normalise
    """Pixel values to network inputs: mean and std per channel, or per_image."""
    options: MaskOptions = Field(default_factory=MaskOptions)
    """From activation to pseudo-mask."""
