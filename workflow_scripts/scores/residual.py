"""Residual: minus the norm of the feature's residual, ViM's part without logits (Wang et al., CVPR 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Gt

from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores import vim
from workflow_scripts.scores.base import Batch, Known

SPEC = ScoreSpec(family="distance", needs={"features", "head", "train_features"}, space={
    "dim": (8, 16, 32, 64, 128, 256, 512, 1000)})


@dataclass(frozen=True)
class Options:
    dim: Annotated[int, Gt(0)] | None = None
    """Principal directions; left out: 1000 for features of 2048 values or more, 512 for more than 512, else half."""


def fit(options: Options, known: Known) -> vim.Residual:
    """The residual space. Raises OODError when `dim` leaves none."""
    return vim.residual_space(vim.dimension(options.dim, known.train_features.shape[1], "residual.dim"), known)


def score(options: Options, known: Known, state: vim.Residual, batch: Batch) -> Any:
    """Minus the length of the residual. features (N, D) -> (N,) float64, at most 0."""
    return -vim.norm(state, batch.features)
