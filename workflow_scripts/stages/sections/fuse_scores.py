"""The section of :mod:`workflow_scripts.stages.fuse_scores`."""

from __future__ import annotations

from workflow_scripts.stages.sections.scored import Scored


class FuseScores(Scored):
    """A score of two others."""

    score: str = "fusion"
    """A module of `workflow_scripts/scores`."""
    train: str
    """The ID train set ({dataset}.{split}), whose scores give the constants."""
