"""What the stage of the results page is told."""

from __future__ import annotations

from workflow_scripts.reporting.inputs import Page


class MakeReport(Page):
    """The results page."""
