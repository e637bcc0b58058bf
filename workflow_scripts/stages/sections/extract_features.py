"""The section of :mod:`workflow_scripts.stages.extract_features`."""

from __future__ import annotations

from typing import Literal

from workflow_scripts.networks.architecture import Pass


class ExtractFeatures(Pass):
    """The sets, and the forward pass over them."""

    sets: list[str]
    """Names of the sets ({dataset}.{split}), in the order of --stores."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of what is before the penultimate features."""
