"""T2FNorm: features brought to one length in training, and not when images are scored (Regmi et al., CVPR workshops
2024).

In training z = W h / (tau |h|) + b, with cross-entropy. Afterwards z = W h / tau + b, as in OpenOOD, so that W / tau is
written as the head's weight: the network is an ordinary one, whose scores see h as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor, nn
from torch.nn import functional

from workflow_scripts.core.specs import MethodSpec
from workflow_scripts.methods.base import Batch, EvalData, Method

SPEC = MethodSpec()


@dataclass(frozen=True)
class Options:
    temperature: Annotated[float, Gt(0)] = 0.1
    """Temperature tau; 0.1 is OpenOOD's for CIFAR, and 0.05 stands in its script for ImageNet."""


class T2FNorm(Method):
    """See the module's docstring."""

    def __init__(self, options: Options):
        super().__init__()
        self.options = options

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        unit = functional.normalize(network.features(batch.images), dim=1)
        logits = network.head(unit / self.options.temperature)
        return functional.cross_entropy(logits, batch.labels), logits

    def predict(self, network: nn.Module, images: Tensor) -> Tensor:
        return network.head(network.features(images) / self.options.temperature)

    @torch.no_grad()
    def finish(self, network: nn.Module, eval_data: EvalData) -> None:
        """Put the temperature into the head's weight."""
        network.head.weight /= self.options.temperature


def build(options: Options, released: tuple[str, ...]) -> T2FNorm:
    return T2FNorm(options)
