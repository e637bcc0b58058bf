"""ODIN: tempered softmax of a slightly perturbed input (Liang et al., ICLR 2018, eq. 1-2; form of the HIMPLoS release).

x' = x - epsilon * sign(grad_x CE(z(x) / T, argmax z)), with sign(0) = +1; score = log max_k softmax(z(x') / T)_k. The
step is taken in the network's (normalised) input space and not divided by the channels' standard deviations. As in
``msp`` the score is the logarithm of the probability, which is exp(score).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional

from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores.arrays import max_log_softmax
from workflow_scripts.scores.base import Known

SPEC = ScoreSpec(needs={"network"})


@dataclass(frozen=True)
class Options:
    temperature: Annotated[float, Gt(0)] = 1000.0
    """T."""
    epsilon: Annotated[float, Ge(0)] = 0.004
    """Size of the step, in units of the normalised input."""


def downhill(loss: Tensor, x: Tensor) -> Tensor:
    """Minus the sign of the gradient of ``loss`` (a scalar) by ``x``; a zero gradient counts as positive."""
    return torch.where(torch.autograd.grad(loss, x)[0] >= 0, -1.0, 1.0).to(x.dtype)


def score(options: Options, known: Known, state: None, network: nn.Module, images: Tensor) -> Tensor:
    """Log of the largest tempered softmax probability. images (N, 3, H, W) -> (N,) float64, at most 0."""
    if options.epsilon:
        with torch.enable_grad():
            x = images.detach().requires_grad_()
            z = network(x)
            loss = functional.cross_entropy(z / options.temperature, z.argmax(dim=1), reduction="sum")
            images = images + options.epsilon * downhill(loss, x)
    with torch.no_grad():
        return max_log_softmax(network(images).double() / options.temperature)
