"""The section of the stage of the results page."""

from __future__ import annotations

from workflow_scripts.reporting.inputs import Page


class MakeReport(Page):
    """The results page."""
