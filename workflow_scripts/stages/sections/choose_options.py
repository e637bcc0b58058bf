"""The section of :mod:`workflow_scripts.stages.choose_options`."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Gt

from workflow_scripts.stages.sections.scored import Scored


class ChooseOptions(Scored):
    """A score whose options are chosen among those that its declaration names."""

    network: str = ""
    """Name of the network, for messages."""
    id: str | None = None
    """Of --sets the ID set ({dataset}.{split}); null: ID train images stand for it, and --sets holds pseudo-OOD copies
    of them."""
    criterion: Literal["auroc", "fpr95"] = "auroc"
    """What is best at the chosen point, on average over the OOD sets; equal: the other one, then the first point."""
    at_most: Annotated[int, Gt(0)] = 100
    """Points of a space that are all tried; of a larger one, the values of one option after the other, each with the
    best of those before it."""
