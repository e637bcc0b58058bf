"""The section of the stage of a paper's figures."""

from __future__ import annotations

from workflow_scripts.core.section import Section
from workflow_scripts.reporting.inputs import Run


class DrawFigures(Section):
    paper: str
    """Name of the paper."""
    title: str
    """Its title."""
    runs: list[Run]
    """The networks whose results it reports, with their score files."""
    names: dict[str, str] = {}
    """Printed names by key."""
    headline: str = ""
    """The score of the histograms; left out: the first."""
