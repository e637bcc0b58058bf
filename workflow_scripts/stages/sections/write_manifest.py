"""The section of the stage of a paper's manifest."""

from __future__ import annotations

from typing import Any

from workflow_scripts.core.section import Section


class WriteManifest(Section):
    config: dict[str, Any]
    """The configuration of the paper's experiments, as it was checked when it was read."""
    code: dict[str, dict[str, str]]
    """Digest of each module behind each stage."""
    seeds: list[int]
    """Seeds of its networks."""
