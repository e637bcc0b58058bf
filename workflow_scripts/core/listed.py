"""A list of images as a dataset uses it; light, since the Snakefile reads it."""

from __future__ import annotations

from typing import Literal

from workflow_scripts.core.section import Section

By = Literal["folders", "name", "mnist", "svhn", "cifar"]
"""How a path of a list finds its image: :mod:`workflow_scripts.data.image_list`."""


class ListUsed(Section):
    """Which list, and how its paths find images."""

    name: str
    """Name of the list, `{benchmark}/{list}`."""
    count: int
    """Its images."""
    paths: str
    """sha256 of its sorted paths."""
    lines: str
    """sha256 of its sorted lines."""
    by: By
    """How a path finds its image."""
    allow_missing: int = 0
    """So many of its images may be missing."""
