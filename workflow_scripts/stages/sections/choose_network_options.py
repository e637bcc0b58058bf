"""The section of :mod:`workflow_scripts.stages.choose_network_options`."""

from __future__ import annotations

from workflow_scripts.networks.architecture import Pass
from workflow_scripts.stages.sections.extract_pseudo_ood import Copied
from workflow_scripts.stages.sections.searched import Searched


class ChooseNetworkOptions(Searched, Pass):
    """A score that runs the network, whose options are chosen."""

    sets: list[str] = []
    """Names of the validation sets ({dataset}.{split}), in the order of --stores; none: pseudo-OOD copies are made."""
    copies: Copied | None = None
    """Pseudo-OOD copies of ID train images, where there are no validation sets."""
