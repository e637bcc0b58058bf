"""Fine-tuning against a background (background data resampling, CVPR 2020, step 4; with all images: outlier exposure).

L = CE(ID) + coefficient * mean_j D_j over the background images j, where D_j is KL(uniform || softmax z_j), or with
``divergence: entropy`` KL(softmax z_j || uniform). ID and background images share one forward pass. As released, the
network is in eval mode throughout: batch norm uses the statistics of the pretrained network and does not change them
(its scale and shift train), and dropout is off.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional

from workflow_scripts.core.specs import MethodSpec
from workflow_scripts.methods.base import Batch, Method

SPEC = MethodSpec(outliers="always")


@dataclass(frozen=True)
class Options:
    coefficient: Annotated[float, Ge(0)] = 0.5
    """Weight c of the background's term."""
    divergence: Literal["uniform_kl", "entropy"] = "uniform_kl"
    """`uniform_kl`: KL(U || softmax); `entropy`: KL(softmax || U), the release's --maxent."""
    background_bn: Literal["eval", "train"] = "eval"
    """`eval`: batch norm keeps the pretrained statistics and dropout is off, as released; `train`: as usual."""


def divergence(logits: Tensor, kind: str) -> Tensor:
    """Distance of each softmax from the uniform distribution, in nats, at least 0. (M, K) -> (M,)."""
    log_softmax = functional.log_softmax(logits, dim=1)
    if kind == "entropy":
        return (log_softmax.exp() * log_softmax).sum(1) + math.log(logits.shape[1])
    return -log_softmax.mean(1) - math.log(logits.shape[1])


class Background(Method):
    """See the module's docstring."""

    outliers = True

    def __init__(self, options: Options):
        super().__init__()
        self.options = options

    def start_epoch(self, network: nn.Module, epoch: int) -> None:
        network.train(self.options.background_bn == "train")

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        logits = network(torch.cat((batch.images, batch.outliers)))
        id_logits, ood_logits = logits.split((len(batch.images), len(batch.outliers)))
        background = self.weighted(divergence(ood_logits, self.options.divergence), batch).mean()
        return functional.cross_entropy(id_logits, batch.labels) + self.options.coefficient * background, id_logits

    def weighted(self, distances: Tensor, batch: Batch) -> Tensor:
        """The background images' terms; here each counts the same. (M,) -> (M,)."""
        return distances


def build(options: Options, released: tuple[str, ...]) -> Background:
    return Background(options)
