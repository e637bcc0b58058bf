"""LogitNorm: cross-entropy of logits brought to one length (Wei et al., ICML 2022).

L = -log( exp(z_y / (tau |z|)) / sum_k exp(z_k / (tau |z|)) ). Only the direction of z counts, so that training does not
make logits ever longer. Scores read the logits z as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor, nn
from torch.nn import functional

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.specs import MethodSpec
from workflow_scripts.methods.base import Batch, Method, Sizes

SPEC = MethodSpec()
_LEAST = 1e-7  # added to the length, as in the release


@dataclass(frozen=True)
class Options:
    temperature: Annotated[float, Gt(0)] = 0.04
    """Temperature tau; 0.04 is OpenOOD's for CIFAR and ImageNet, the release's command for CIFAR-10 has 0.01. It
    divides the gradient too: a short training of a small network at learning rate 0.1 can fail with 0.04, and needs 0.4
    or so."""


def of_one_length(logits: Tensor, temperature: float) -> Tensor:
    """The logits divided by their length and the temperature. (B, K) -> (B, K)."""
    return logits / ((torch.linalg.vector_norm(logits, dim=1, keepdim=True) + _LEAST) * temperature)


class LogitNorm(Method):
    """See the module's docstring."""

    def __init__(self, options: Options):
        super().__init__()
        self.options = options

    def setup(self, network: nn.Module, sizes: Sizes) -> None:
        """Raises OODError where all logits are 0 at first: they have no direction, and huge gradients."""
        head = network.head
        if not head.weight.any() and (head.bias is None or not head.bias.any()):
            raise OODError("LogitNorm: the network's head starts at zero, and logits of length 0 have no direction; "
                           "give the recipe a parent whose head is trained, or take another network")

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        logits = network(batch.images)
        return functional.cross_entropy(of_one_length(logits, self.options.temperature), batch.labels), logits


def build(options: Options, released: tuple[str, ...]) -> LogitNorm:
    return LogitNorm(options)
