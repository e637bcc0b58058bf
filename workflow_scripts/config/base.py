"""What every part of the configuration is made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from workflow_scripts.core.section import Fraction, PositiveFraction, Strict

__all__ = ["Fraction", "Name", "PositiveFraction", "Strict", "Where"]

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


class Where(Strict):
    """Restricts an entry to some ID sets or networks; an empty list means all."""

    id: list[Name] = []
    """ID datasets the entry is for."""
    network: list[Name] = []
    """Networks the entry is for."""

    def matches(self, id: str, network: str) -> bool:
        return (not self.id or id in self.id) and (not self.network or network in self.network)
