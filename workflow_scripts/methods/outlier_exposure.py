"""Outlier exposure (OE): cross-entropy on ID images, uniform predictions on outliers (Hendrycks et al., ICLR 2019).

L = CE(ID) + oe_weight * mean_j CE(uniform, softmax z_j) over the outliers j. ID images and outliers share one forward
pass, and with it batch norm, as in OE's own code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional

from workflow_scripts.core.specs import MethodSpec
from workflow_scripts.methods.base import Batch, Method

SPEC = MethodSpec(shared_defects=("goe.2g-4", "goe.2g-5"), outliers="always")


@dataclass(frozen=True)
class Options:
    oe_weight: Annotated[float, Ge(0)] = 0.5
    """Weight of the outliers' term; 0.5 in OE and G-OE."""


def uniform_cross_entropy(logits: Tensor) -> Tensor:
    """Cross-entropy of each row against the uniform distribution: logsumexp z - mean z.

    At least log K, which constant logits reach; there its gradient is 0. (M, K) -> (M,).
    """
    return logits.logsumexp(1) - logits.mean(1)


class OutlierExposure(Method):
    """See the module's docstring."""

    outliers = True

    def __init__(self, options: Options):
        super().__init__()
        self.options = options

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        logits = network(torch.cat((batch.images, batch.outliers)))
        id_logits, ood_logits = logits.split((len(batch.images), len(batch.outliers)))
        exposure = uniform_cross_entropy(ood_logits).mean()
        return functional.cross_entropy(id_logits, batch.labels) + self.options.oe_weight * exposure, id_logits


def build(options: Options, released: tuple[str, ...]) -> OutlierExposure:
    return OutlierExposure(options)
