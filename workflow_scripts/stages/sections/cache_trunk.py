"""What :mod:`workflow_scripts.stages.cache_trunk` is told."""

from __future__ import annotations

from workflow_scripts.networks.architecture import Pass


class CacheTrunk(Pass):
    """The forward pass."""
