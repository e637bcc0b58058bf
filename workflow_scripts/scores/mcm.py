"""Maximum concept matching: largest softmax of the cosines with the class texts (Ming et al., NeurIPS 2022).

For a CLIP image tower with a text head; on its untouched weights it is the zero-shot baseline.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge, Gt

from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores.arrays import float64, max_log_softmax, namespace
from workflow_scripts.scores.base import Batch, Known

SPEC = ScoreSpec(family="vision-language", needs={"features", "head"}, defects={
    "npos.B3": ("CLIP image features are divided by the norm of the whole batch", "")}, space={
    "T": (0.01, 0.1, 1.0)})


@dataclass(frozen=True)
class Options:
    T: Annotated[float, Gt(0)] = 1.0
    """Divides the cosines."""
    released_batch: Annotated[int, Ge(0)] = 0
    """0: each embedding is divided by its own length. Otherwise the released code's defect npos.B3: each is divided by
    the length of the whole batch of so many images in a row as one vector, so that the score depends on its
    neighbours (256 in the release's test script)."""


def score(options: Options, known: Known, state: Any, batch: Batch) -> Any:
    """Logarithm of the largest softmax probability. features (N, D) -> (N,) float64, at most 0."""
    xp = namespace(batch.features)
    h = float64(batch.features)
    squares = xp.sum(h * h, axis=-1, keepdims=True)
    if options.released_batch:
        parts = [xp.broadcast_to(xp.sum(squares[start:start + options.released_batch, :]),
                                 squares[start:start + options.released_batch, :].shape)
                 for start in range(0, h.shape[0], options.released_batch)]
        squares = xp.concat(parts) if parts else squares
    cosines = h / xp.clip(xp.sqrt(squares), min=1e-12) @ float64(known.head.weight).T
    return max_log_softmax(cosines / options.T)
