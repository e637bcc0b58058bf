"""Cross-entropy with mixup (Zhang et al., ICLR 2018) in BiT's form: DFB's first stage, fine-tuning to K classes.

One lambda per batch, from Beta(alpha, alpha), a function of (seed, epoch, step); each image is mixed with another one
of the batch, and the loss is lambda CE(y) + (1 - lambda) CE(y'). BiT mixes from 20,000 train images on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional

from workflow_scripts.core.specs import MethodSpec
from workflow_scripts.methods.base import Batch, Method, Sizes

SPEC = MethodSpec(shared_defects=("dfb.2h-1",))
_MIXUP_FROM = 20_000  # train images


@dataclass(frozen=True)
class Options:
    alpha: Annotated[float, Ge(0)] | None = None
    """Parameter of the Beta distribution; 0: no mixup; left out: BiT's rule, 0.1 from 20,000 train images on."""


def bit_mixup(images: int) -> float:
    """BiT's rule: parameter of mixup's Beta distribution; 0: no mixup."""
    return 0.0 if images < _MIXUP_FROM else 0.1


def mixing(batch: Batch, alpha: float) -> tuple[float, Tensor]:
    """The step's lambda and the place of each image's partner in the batch, (B,) int64."""
    rng = np.random.default_rng((batch.seed, batch.epoch, batch.step))
    lam = float(rng.beta(alpha, alpha))
    partners = torch.from_numpy(rng.permutation(len(batch.labels)))
    return lam, partners.to(batch.labels.device, non_blocking=True)


class Mixup(Method):
    """See the module's docstring."""

    def __init__(self, options: Options):
        super().__init__()
        self.options = options
        self.alpha = options.alpha or 0.0

    def setup(self, network: nn.Module, sizes: Sizes) -> None:
        if self.options.alpha is None:
            self.alpha = bit_mixup(sizes.images)

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        if not self.alpha:
            logits = network(batch.images)
            return functional.cross_entropy(logits, batch.labels), logits
        lam, other = mixing(batch, self.alpha)
        logits = network(torch.lerp(batch.images[other], batch.images, lam))
        return (lam * functional.cross_entropy(logits, batch.labels)
                + (1 - lam) * functional.cross_entropy(logits, batch.labels[other])), logits


def build(options: Options, released: tuple[str, ...]) -> Mixup:
    return Mixup(options)
