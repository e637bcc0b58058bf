"""Which score, as the three stages that compute scores read it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from workflow_scripts.core.section import Section, options_of


class Scored(Section):
    """A score with its options."""

    score: str
    """A module of `workflow_scripts/scores`, or the path of an own one."""
    name: str = Field(default_factory=lambda fields: fields["score"])
    """Name in tables; left out: the module's."""
    options: Annotated[Any, options_of("scores", "score", "scores.{name}")] = Field({}, validate_default=True)
    """Options of the module."""
