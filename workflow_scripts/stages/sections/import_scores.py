"""The section of :mod:`workflow_scripts.stages.import_scores`."""

from __future__ import annotations

from typing import Any, Literal

from workflow_scripts.core.section import Section


class ImportScores(Section):
    """Which sets the files hold, and what their numbers mean."""

    id: str
    """The ID set."""
    groups: dict[str, list[str]]
    """OOD sets by group."""
    files: dict[str, int]
    """Set -> the number of its file among --files, counted from 0."""
    raw: list[Any] = []
    """Content of --files, in their order."""
    score: str = "score"
    """Name in tables."""
    higher_is: Literal["id", "ood"] = "id"
    """What a higher score means; ood turns the sign."""
    labels: Literal["negative_is_ood", "one_is_ood", "one_is_id"] = "negative_is_ood"
    """What labels in a file say."""
    count: Literal["same", "any"] = "same"
    """same: as many scores as our stores have images."""
    compat: list[str] = []
    """Papers whose own counting rules are computed as well."""
