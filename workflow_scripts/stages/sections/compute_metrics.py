"""The section of :mod:`workflow_scripts.stages.compute_metrics`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from workflow_scripts.core.section import Section


class ComputeMetrics(Section):
    """What to compare: names of sets ({dataset}.{split}) inside the score files."""

    id: str
    """The ID test set."""
    groups: dict[str, list[str]]
    """OOD sets by group."""
    compat: list[str] = []
    """Papers whose own counting rules are computed as well."""
    confidence: dict[str, Literal["score", "exp", "plus_one"]] = {}
    """Score -> what its values are to the confidence that releases threshold: it, its logarithm, or it less 1. Metrics
    at a release's own threshold are computed for these scores alone."""
    id_like: dict[str, str] = {}
    """OOD set -> the set of images beside it that `scood` counts as ID."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if "id" in self.groups:
            raise ValueError("groups: 'id' names the rows of the ID task; give this group another name")
        named = [name for group in self.groups.values() for name in group]
        sets = [self.id, *named]
        twice = sorted({name for name in sets if sets.count(name) > 1})
        if twice:
            raise ValueError(f"'{twice[0]}' is named more than once; a set is either ID or in one group")
        for name in self.id_like.keys() - set(named):
            raise ValueError(f"id_like: OOD sets of groups expected, found '{name}'")
        return self
