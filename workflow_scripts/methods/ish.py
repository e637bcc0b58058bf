"""ISH, intermediate tensor shaping: features shaped in the gradient of the head's weight (Xu et al., ICLR 2024).

Cross-entropy, whose forward pass is the usual one. In the backward pass the gradient of the head's weight is
sum_i dL/dz_i (x) a_i with a_i = h_i exp(r_i) in place of h_i, where r_i = sum h_i / (sum of its largest values): images
with much activation outside their largest values count more. All other gradients are the usual ones. As in OpenOOD's
code, a_i keeps the largest values alone; ``prune: false`` keeps all. Its script fine-tunes a trained ImageNet network
for 10 epochs at learning rate 0.003; networks are then scored by SCALE.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Ge, Interval
from torch import Tensor, nn
from torch.nn import functional

from workflow_scripts.core.specs import MethodSpec
from workflow_scripts.methods.base import Batch, Method

SPEC = MethodSpec()


@dataclass(frozen=True)
class Options:
    p: Annotated[float, Interval(ge=0, lt=100)] = 85.0
    """Percentage of each feature that is not among its largest values."""
    prune: bool = True
    """Whether the shaped features are 0 but for their largest values."""
    head_weight_decay: Annotated[float, Ge(0)] | None = 5e-5
    """Weight decay of the head (weight_decay_fc); null: that of the recipe."""


def shaped(features: Tensor, p: float, prune: bool) -> Tensor:
    """The features times exp(sum / sum of the largest), pruned or not; where the divisor is 0, times 1. (B, D) -> (B,
    D)."""
    width = features.shape[1]
    largest, places = features.abs().topk(max(1, int(width * (100 - p) / 100)), dim=1)
    total = largest.sum(1, keepdim=True)
    ratio = features.sum(1, keepdim=True) / total.where(total > 0, 1)
    kept = torch.zeros_like(features).scatter(1, places, largest) if prune else features
    return kept * ratio.exp()


def shaped_head(head: nn.Linear, features: Tensor, options: Options) -> Tensor:
    """Logits of the features, to the bit, whose gradient reaches the head's weight through the shaped features alone.

    (B, D) -> (B, K).
    """
    through = functional.linear(shaped(features.detach(), options.p, options.prune), head.weight)
    return functional.linear(features, head.weight.detach(), head.bias) + (through - through.detach())


class ISH(Method):
    """See the module's docstring."""

    def __init__(self, options: Options):
        super().__init__()
        self.options = options

    def parameter_groups(self, network: nn.Module) -> list[dict[str, Any]]:
        """The head's parameters have a weight decay of their own."""
        head = list(network.head.parameters())
        own = {id(p) for p in head}
        decay = self.options.head_weight_decay
        return [{"params": [p for p in network.parameters() if p.requires_grad and id(p) not in own]},
                {"params": head, **({} if decay is None else {"weight_decay": decay})}]

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        logits = shaped_head(network.head, network.features(batch.images), self.options)
        return functional.cross_entropy(logits, batch.labels), logits


def build(options: Options, released: tuple[str, ...]) -> ISH:
    return ISH(options)
