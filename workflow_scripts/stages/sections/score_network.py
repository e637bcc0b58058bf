"""The section of :mod:`workflow_scripts.stages.score_network`."""

from __future__ import annotations

from workflow_scripts.networks.architecture import Pass
from workflow_scripts.stages.sections.scored import Scored


class ScoreNetwork(Scored, Pass):
    """A score that needs the network itself, and the forward pass of it."""

    sets: list[str]
    """Names of the sets ({dataset}.{split}), in the order of --stores."""
