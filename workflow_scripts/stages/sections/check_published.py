"""The section of :mod:`workflow_scripts.stages.check_published`."""

from __future__ import annotations

from typing import Any

from workflow_scripts.core.section import Section


class CheckPublished(Section):
    """Printed numbers, and what they are computed from."""

    check: str
    """A module of `workflow_scripts/agreement`."""
    files: dict[str, list[str]]
    """Its files: paths or globs below the data root, the first that is there is read."""
    left_out: dict[str, list[str]] = {}
    """Of them, those that need not be there -> the quantities that are then left out."""
    printed: dict[str, str]
    """Quantity -> the printed number."""
    seed: int = 0
    """Of the draws that the source made without one."""
    raw: dict[str, Any] = {}
    """What tells the files from others; not read."""
