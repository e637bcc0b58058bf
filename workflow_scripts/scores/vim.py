"""ViM: energy minus the virtual logit, the scaled norm of the feature's residual (Wang et al., CVPR 2022).

The origin is u = -pinv(W) b. The residual is the part of h - u outside the `dim` principal directions of the ID train
features; alpha makes its mean norm over ID train equal to the mean largest logit.
Score = logsumexp(z) - alpha |residual|.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Gt

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores.arrays import affine, blocks, float64, logsumexp, namespace
from workflow_scripts.scores.base import Batch, Known

SPEC = ScoreSpec(family="distance", needs={"features", "head", "train_features"}, space={
    "dim": (8, 16, 32, 64, 128, 256, 512, 1000)})


@dataclass(frozen=True)
class Options:
    dim: Annotated[int, Gt(0)] | None = None
    """Principal directions; left out: 1000 for features of 2048 values or more, 512 for more than 512, else half."""


@dataclass(frozen=True)
class Residual:
    """``origin`` (D,) and an orthonormal ``basis`` (D, D - dim) of what the principal directions leave."""

    origin: Any
    basis: Any


def dimension(dim: int | None, size: int, key: str) -> int:
    """Number of principal directions for features of ``size`` values.

    Raises:
        OODError: naming ``key``, when nothing would be left as residual.
    """
    if dim is None:
        return 1000 if size >= 2048 else 512 if size > 512 else size // 2
    if dim >= size:
        raise OODError(f"{key}: {dim} principal directions leave no residual of features of {size} values; choose less "
                       f"than {size}, or leave it out")
    return dim


def residual_space(dim: int, known: Known) -> Residual:
    """The space orthogonal to the ``dim`` principal directions of the train features about the origin."""
    xp = namespace(known.train_features)
    origin = -(xp.linalg.pinv(float64(known.head.weight)) @ float64(known.head.bias))
    scatter = 0.0
    for _, h in blocks(known.train_features):
        scatter = scatter + (h - origin).T @ (h - origin)
    _, vectors = xp.linalg.eigh(scatter / known.train_features.shape[0])  # by rising eigenvalue
    return Residual(origin, vectors[:, :vectors.shape[0] - dim])


def norm(space: Residual, features: Any) -> Any:
    """Length of the residual. (N, D) -> (N,) float64."""
    return namespace(features).linalg.vector_norm((float64(features) - space.origin) @ space.basis, axis=-1)


def fit(options: Options, known: Known) -> tuple[Residual, float]:
    """The residual space and alpha.

    Raises:
        OODError: the residual is empty, by `dim` or because the train features have none.
    """
    xp = namespace(known.train_features)
    space = residual_space(dimension(options.dim, known.train_features.shape[1], "vim.dim"), known)
    logits = lengths = 0.0
    for _, h in blocks(known.train_features):
        logits += float(xp.sum(xp.max(affine(h, known.head), axis=-1)))
        lengths += float(xp.sum(norm(space, h)))
    if lengths == 0:
        raise OODError("vim.dim: the ID train features have no residual; choose fewer principal directions")
    return space, logits / lengths


def score(options: Options, known: Known, state: tuple[Residual, float], batch: Batch) -> Any:
    """Energy minus the virtual logit. features (N, D) -> (N,) float64."""
    space, alpha = state
    return logsumexp(affine(batch.features, known.head)) - alpha * norm(space, batch.features)
