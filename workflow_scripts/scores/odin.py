"""ODIN: tempered softmax of a slightly perturbed input (Liang et al., ICLR 2018, eq. 1-2; form of the HIMPLoS release).

x' = x - epsilon * sign(grad_x CE(z(x) / T, argmax z)), with sign(0) = +1; score = log max_k softmax(z(x') / T)_k. The
step is taken in the network's (normalised) input space; ODIN's own code divides it by each channel's standard deviation
(option ``by_std``), the HIMPLoS release does not. As in ``msp`` the score is the logarithm of the probability, which is
exp(score).
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

SPEC = ScoreSpec(needs={"network", "input_std"}, space={
    "temperature": (1.0, 10.0, 100.0, 1000.0), "epsilon": (0.0, 0.0014, 0.0028, 0.004)})


@dataclass(frozen=True)
class Options:
    temperature: Annotated[float, Gt(0)] = 1000.0
    """T."""
    epsilon: Annotated[float, Ge(0)] = 0.004
    """Size of the step, in units of the normalised input."""
    by_std: bool = False
    """Divide the step by the standard deviation of each channel, by which the input was divided (ODIN's own code)."""


def needs(options: Options) -> frozenset[str]:
    return SPEC.needs if options.by_std else SPEC.needs - {"input_std"}


def downhill(loss: Tensor, x: Tensor) -> Tensor:
    """Minus the sign of the gradient of ``loss`` (a scalar) by ``x``; a zero gradient counts as positive."""
    return torch.where(torch.autograd.grad(loss, x)[0] >= 0, -1.0, 1.0).to(x.dtype)


def step(options: Options, known: Known, x: Tensor) -> Tensor:
    """Size of the step in each channel of x (N, 3, H, W). -> (3, 1, 1)."""
    std = known.input_std if options.by_std else (1.0,)
    return options.epsilon / torch.tensor(std, dtype=x.dtype, device=x.device)[:, None, None]


def perturbed(options: Options, known: Known, network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """The moved input x' (N, 3, H, W), and the logits (N, K) of the images before."""
    with torch.enable_grad():
        x = images.detach().requires_grad_()
        z = network(x)
        loss = functional.cross_entropy(z / options.temperature, z.argmax(dim=1), reduction="sum")
        return images + step(options, known, x) * downhill(loss, x), z.detach()


def score(options: Options, known: Known, state: None, network: nn.Module, images: Tensor) -> Tensor:
    """Log of the largest tempered softmax probability. images (N, 3, H, W) -> (N,) float64, at most 0."""
    if options.epsilon:
        images, _ = perturbed(options, known, network, images)
    return confidence(options, network, images)


def confidence(options: Options, network: nn.Module, images: Tensor) -> Tensor:
    """Log of the largest tempered softmax probability of the images as they are. (N, 3, H, W) -> (N,) float64."""
    with torch.no_grad():
        return max_log_softmax(network(images).double() / options.temperature)
