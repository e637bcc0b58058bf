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
    """OOD set -> the set of its images that `scood` counts as ID."""
    listed: dict[str, str] = {}
    """OOD set that holds those images too -> the set of the others, which `scood` counts as OOD."""
    shifted: list[str] = []
    """Sets of covariate-shifted ID images, which `openood-fs` counts as ID."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if "id" in self.groups:
            raise ValueError("groups: 'id' names the rows of the ID task; give this group another name")
        named = [name for group in self.groups.values() for name in group]
        sets = [self.id, *named, *self.shifted]
        twice = sorted({name for name in sets if sets.count(name) > 1})
        if twice:
            raise ValueError(f"'{twice[0]}' is named more than once; a set is either ID or in one group")
        for key in ("id_like", "listed"):
            for name in getattr(self, key).keys() - set(named):
                raise ValueError(f"{key}: OOD sets of groups expected, found '{name}'")
        for name in self.listed.keys() - self.id_like.keys():
            raise ValueError(f"listed: '{name}' has no images that count as ID; name them in id_like")
        return self
