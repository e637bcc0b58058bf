"""What is known of the papers: the references of ``CITATION.cff``, the one source for authors, year, venue, numbers,
released code and its licence."""

from __future__ import annotations

from functools import cache
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from workflow_scripts.core.digest import ROOT
from workflow_scripts.core.errors import unknown
from workflow_scripts.core.yaml_files import read_yaml


class _Read(BaseModel):
    """Part of a file in the Citation File Format, whose other keys stay unread."""

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)


class _Person(_Read):
    family: str = Field(alias="family-names")


class _Conference(_Read):
    alias: str


class _Identifier(_Read):
    value: str


class Work(_Read):
    """One of the papers."""

    abbreviation: str
    """What a configuration calls it."""
    title: str
    authors: list[_Person]
    year: int
    conference: _Conference | None = None
    journal: str = ""
    identifiers: list[_Identifier] = []
    code: str = Field("", alias="repository-code")
    """Address of the released code."""
    licence: str = Field("", alias="license")
    """Of the released code; empty: it has none."""

    @property
    def names(self) -> list[str]:
        """Family names of the authors."""
        return [person.family for person in self.authors]

    @property
    def arxiv(self) -> str:
        """Its number on arXiv; empty where it has none."""
        found = (one.value.partition(":") for one in self.identifiers)
        return next((number for kind, _, number in found if kind == "arXiv"), "")

    @property
    def venue(self) -> str:
        """`ICLR 2023`; the year alone where it is a preprint."""
        journal = "" if self.journal == "arXiv preprint" else self.journal
        return f"{self.conference.alias if self.conference else journal} {self.year}".strip()

    @property
    def short(self) -> str:
        """`Ding & Pang, MM 2024, arXiv 2303.08727`."""
        names = self.names
        authors = " & ".join(names) if len(names) == 2 else ", ".join(names)
        return ", ".join([authors, self.venue, *([f"arXiv {self.arxiv}"] if self.arxiv else [])])


@cache
def works() -> dict[str, Work]:
    """The papers by their abbreviation."""
    references: list[dict[str, Any]] = read_yaml(ROOT / "CITATION.cff")["references"]
    return {work.abbreviation: work for work in map(Work.model_validate, references)}


def known(abbreviation: str) -> str:
    """An abbreviation of ``CITATION.cff``, or nothing.

    Raises:
        ValueError: it has no such reference.
    """
    if abbreviation and abbreviation not in works():
        raise ValueError(str(unknown("reference of CITATION.cff", abbreviation, works())))
    return abbreviation
