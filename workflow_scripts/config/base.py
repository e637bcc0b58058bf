"""What every part of the configuration is made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
Fraction = Annotated[float, Field(ge=0, le=1)]
PositiveFraction = Annotated[float, Field(gt=0, le=1)]


class Strict(BaseModel):
    """A mapping whose unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True,
                              ser_json_inf_nan="strings")


class Where(Strict):
    """Restricts an entry to some ID sets or networks; an empty list means all."""

    id: list[Name] = []
    """ID datasets the entry is for."""
    network: list[Name] = []
    """Networks the entry is for."""

    def matches(self, id: str, network: str) -> bool:
        return (not self.id or id in self.id) and (not self.network or network in self.network)
