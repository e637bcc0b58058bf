"""MixOE, mixture outlier exposure: ID images mixed with outliers, and targets that decay with the share of the ID image
(Zhang et al., WACV 2023).

L = CE(f(x), y) + beta (lambda CE(f(m), y) + (1 - lambda) CE(f(m), uniform)), where m mixes an ID image x with an
outlier o, and lambda ~ Beta(alpha, alpha) is one number for the batch. ``linear``: m = lambda x + (1 - lambda) o;
``cutmix``: x with a rectangle of o, and lambda becomes the share of x's pixels. Images and mixtures are two forward
passes, as released, so that batch norm keeps them apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional

from workflow_scripts.core.specs import MethodSpec
from workflow_scripts.methods.base import Batch, Method
from workflow_scripts.methods.outlier_exposure import uniform_cross_entropy

SPEC = MethodSpec(outliers="always")


@dataclass(frozen=True)
class Options:
    mix: Literal["linear", "cutmix"] = "linear"
    """How an ID image and an outlier are mixed (mix-op; linear is its mixup)."""
    alpha: Annotated[float, Gt(0)] = 1.0
    """Both parameters of lambda's Beta distribution; in the release's script 1 for linear and 2 for cutmix."""
    beta: Annotated[float, Ge(0)] = 5.0
    """Weight of the mixtures' loss, 5 in the release's script."""


def rectangle(rng: np.random.Generator, height: int, width: int, lam: float) -> tuple[slice, slice]:
    """Rows and columns of a rectangle of sqrt(1 - lam) of both sides around a random pixel, cut off at the border."""
    sides = [int(side * np.sqrt(1 - lam)) for side in (height, width)]
    centres = [int(rng.integers(side)) for side in (height, width)]
    rows, columns = (slice(max(0, centre - side // 2), min(whole, centre + side // 2))
                     for centre, side, whole in zip(centres, sides, (height, width), strict=True))
    return rows, columns


class MixOE(Method):
    """See the module's docstring."""

    outliers = True

    def __init__(self, options: Options):
        super().__init__()
        self.options = options

    def mixed(self, batch: Batch) -> tuple[Tensor, float]:
        """The step's mixtures (B, 3, H, W) and lambda, a function of (seed, epoch, step). Where the outliers are fewer
        than the ID images, they begin again."""
        rng = np.random.default_rng((batch.seed, batch.epoch, batch.step))
        lam = float(rng.beta(self.options.alpha, self.options.alpha))
        images = batch.images
        outliers = batch.outliers[torch.arange(len(images), device=images.device) % len(batch.outliers)]
        if self.options.mix == "linear":
            return torch.lerp(outliers, images, lam), lam
        height, width = images.shape[2:]
        rows, columns = rectangle(rng, height, width, lam)
        images = images.clone()
        images[:, :, rows, columns] = outliers[:, :, rows, columns]
        return images, 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        logits = network(batch.images)
        mixtures, lam = self.mixed(batch)
        z = network(mixtures)
        exposure = lam * functional.cross_entropy(z, batch.labels) + (1 - lam) * uniform_cross_entropy(z).mean()
        return functional.cross_entropy(logits, batch.labels) + self.options.beta * exposure, logits


def build(options: Options, released: tuple[str, ...]) -> MixOE:
    return MixOE(options)
