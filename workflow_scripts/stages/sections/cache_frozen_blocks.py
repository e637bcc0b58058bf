"""The section of :mod:`workflow_scripts.stages.cache_frozen_blocks`."""

from __future__ import annotations

from workflow_scripts.networks.architecture import Pass


class CacheFrozenBlocks(Pass):
    """The forward pass."""
