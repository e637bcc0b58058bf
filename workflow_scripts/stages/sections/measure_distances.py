"""The section of :mod:`workflow_scripts.stages.measure_distances`."""

from __future__ import annotations

from workflow_scripts.networks.architecture import Pass


class MeasureDistances(Pass):
    """The forward pass over the outliers."""
