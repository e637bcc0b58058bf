"""The section of :mod:`workflow_scripts.stages.make_panels`."""

from __future__ import annotations

from workflow_scripts.cams.options import MaskOptions
from workflow_scripts.core.changes import Normalise
from workflow_scripts.core.section import Section
from workflow_scripts.networks.architecture import Network


class MakePanels(Section):
    """Two networks of one architecture, and how many images they look at."""

    network: Network
    """Architecture of both checkpoints."""
    classifier_normalise: Normalise
    """Pixel values to inputs of the classifier that made the pseudo-masks."""
    normalise: Normalise
    """Pixel values to inputs of the network that was trained on them."""
    options: MaskOptions
    """From activation to pseudo-mask."""
    images: int
    """Images of each set."""
