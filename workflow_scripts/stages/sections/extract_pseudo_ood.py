"""The section of :mod:`workflow_scripts.stages.extract_pseudo_ood`."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Gt
from pydantic import Field

from workflow_scripts.networks.architecture import Pass
from workflow_scripts.stages.sections.pseudo_ood import PseudoOOD


class Copied(PseudoOOD):
    """Of which images copies are made, and how."""

    images: Annotated[int, Gt(1)] = 1_000
    """ID train images to take at most, drawn at random by `seed`, and never more than half of them."""


class ExtractPseudoOOD(Pass):
    """Pseudo-OOD copies of ID train images, and the forward pass over them."""

    options: Copied = Field(default_factory=Copied)
    """Which images, and what copies of them."""
