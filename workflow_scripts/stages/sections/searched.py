"""Among which options of a score is chosen, as the two stages that choose read it."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Gt

from workflow_scripts.stages.sections.scored import Scored


class Searched(Scored):
    """A score whose options are chosen among those that its declaration names."""

    id: str | None = None
    """The ID set ({dataset}.{split}) among the validation sets; null: ID train images stand for it, and pseudo-OOD
    copies of them for OOD sets."""
    criterion: Literal["auroc", "fpr95"] = "auroc"
    """What is best at the chosen point, on average over the OOD sets; equal: the other one, then the first point."""
    at_most: Annotated[int, Gt(0)] = 100
    """Points of a space that are all tried; of a larger one, the values of one option after the other, each with the
    best of those before it."""
