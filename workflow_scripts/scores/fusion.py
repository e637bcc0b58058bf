"""A foreground score plus a weighted background score (DFB, MM 2024).

S = S_fg + weight * scale * (S_bg - mean S_bg), where mean and scale come from the ID train images: ``scale`` is
std(S_fg) / std(S_bg) there, so that weight 1 lets both vary equally, or 1. Weight 0 is the foreground score itself. The
paper's formula could not be retrieved; sign, temperature and form of S_bg are options of the score ``background``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores.arrays import float64, namespace
from workflow_scripts.scores.base import Batch, Known

SPEC = ScoreSpec(family="background", needs={"scores", "train_scores"}, joined=False)


@dataclass(frozen=True)
class Options:
    base: str = "energy"
    """Name of the foreground score, any other of the configuration."""
    background: str = "background"
    """Name of the background score."""
    weight: Annotated[float, Ge(0)] = 1.0
    """Share of the background score."""
    normalise: Literal["std", "none"] = "std"
    """`std`: both scores to the same standard deviation over the ID train images; `none`: as they are."""


def fit(options: Options, known: Known) -> tuple[float, float]:
    """The background's mean over ID train, and its scale.

    Raises:
        OODError: the background score is the same for all ID train images.
    """
    xp = namespace(known.train_scores)
    train = float64(known.train_scores)
    centre = float(xp.mean(train[:, 1]))
    if options.normalise == "none":
        return centre, 1.0
    spread = [float(xp.std(train[:, column])) for column in (0, 1)]
    if spread[1] == 0:
        raise OODError(f"score '{options.background}' is the same for all ID train images, so it cannot be normalised; "
                       "look at the network's pseudo-masks, or set normalise: none")
    return centre, spread[0] / spread[1]


def score(options: Options, known: Known, state: tuple[float, float], batch: Batch) -> Any:
    """scores (N, 2): foreground, background -> (N,) float64."""
    centre, scale = state
    both = float64(batch.scores)
    return both[:, 0] + options.weight * scale * (both[:, 1] - centre)
