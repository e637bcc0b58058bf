"""The section of the stage that compares a paper's scores."""

from __future__ import annotations

from pydantic import Field

from workflow_scripts.core.section import Section
from workflow_scripts.reporting.inputs import Run


class CompareScores(Section):
    paper: str
    """Name of the paper."""
    runs: list[Run]
    """The networks whose results it reports, with their score files."""
    draws: int = Field(default=1000, ge=100)
    """Resamples of the images behind an interval of FPR95."""
