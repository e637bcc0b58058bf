"""The section of :mod:`workflow_scripts.stages.select_outliers`."""

from __future__ import annotations

from typing import Literal

from workflow_scripts.core.section import Section


class SelectOutliers(Section):
    """Which outliers are kept."""

    rule: Literal["random", "learned"]
    """random: each image with the same chance; learned: in proportion to the weights of --weights."""
    ratio: float
    """Share of the images that is kept, on average (drawn) or exactly."""
    size: Literal["drawn", "exact"]
    """drawn: learned keeps each image or not by its own draw; exact: ratio times all images."""
    seed: int
    """Of the draw."""
    stream: str = ""
    """What the draw is for, such as cifar10/wrn40/bg-random: of one seed, each has a draw of its own; empty: they share
    one."""
