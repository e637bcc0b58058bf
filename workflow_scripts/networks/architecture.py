"""Which network, and how images are passed through it, as stages read it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from workflow_scripts.core.changes import Normalise
from workflow_scripts.core.section import Section, options_of


class Network(Section):
    """An architecture."""

    name: str
    """Name in messages."""
    model: str
    """A module of `workflow_scripts/models`."""
    options: Annotated[Any, options_of("models", "model", "network '{name}'")]
    """Its options."""


class Pass(Section):
    """A forward pass over images."""

    network: Network
    """Architecture of the checkpoint."""
    normalise: Normalise
    """Pixel values to network inputs: mean and std per channel, or per_image."""
    batch_size: int | Literal["auto"] | None
    """Images at once; null: as suits the device, auto: measured."""
