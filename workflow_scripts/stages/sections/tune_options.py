"""The section of :mod:`workflow_scripts.stages.tune_options`."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Gt, Interval, MinLen
from pydantic import Field

from workflow_scripts.networks.architecture import Pass
from workflow_scripts.stages.sections.pseudo_ood import PseudoOOD


class Sweep(PseudoOOD):
    """Points to try, and what stands for OOD."""

    p: Annotated[tuple[Annotated[float, Interval(ge=0, le=100)], ...], MinLen(1)] = (
        0, 10, 20, 30, 40, 50, 60, 70, 80, 90)
    """Mask percentiles to try."""
    clip: Annotated[tuple[Annotated[float, Gt(0)], ...], MinLen(1)] = (0.1, 0.5, 0.8, 1.0, 1.5, 2.25, 1e5)
    """Upper clips (lambda) to try, in feature units."""
    K: Annotated[tuple[Annotated[int, Gt(0)], ...], MinLen(1)] = (50, 100, 200, 300, 500, 1000)
    """Neighbours to try (KNN); those larger than the train set are left out."""
    images: Annotated[int, Gt(1)] = 10_000
    """ID images to take at most, evenly spaced in the store."""
    criterion: Literal["auroc", "fpr95"] = "auroc"
    """What is best at the chosen point; equal: the other one, then the smaller p or K, then the larger clip."""


class TuneOptions(Pass):
    """A score whose options are chosen, the points to try, and the forward pass."""

    score: str = "himplos"
    """A module of `workflow_scripts/scores` whose options can be chosen."""
    options: Sweep = Field(default_factory=Sweep)
    """Points to try and what stands for OOD."""
