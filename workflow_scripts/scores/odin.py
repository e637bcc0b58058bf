"""ODIN: tempered softmax of a slightly perturbed input (Liang et al., ICLR 2018, eq. 1-2; form of the HIMPLoS release).

x' = x - epsilon * sign(grad_x CE(z(x) / T, argmax z)), with sign(0) = +1; score = log max_k softmax(z(x') / T)_k. The
step is taken in the network's (normalised) input space; ODIN's own code divides it by each channel's standard deviation
(option ``by_std``), the HIMPLoS release does not. As in ``msp`` the score is the logarithm of the probability, which is
exp(score).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional

from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores.arrays import max_log_softmax
from workflow_scripts.scores.base import Known

SPEC = ScoreSpec(family="gradient", needs={"network", "input_std"}, space={
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


def gradients(temperatures: Sequence[float], network: nn.Module, images: Tensor) -> tuple[list[Tensor], Tensor]:
    """Gradients of the tempered cross-entropy of the prediction, (N, 3, H, W) for each temperature, and the logits
    (N, K): one forward pass of the images."""
    with torch.enable_grad():
        x = images.detach().requires_grad_()
        z = network(x)
        predicted = z.argmax(dim=1)
        losses = [functional.cross_entropy(z / T, predicted, reduction="sum") for T in temperatures]
        return [torch.autograd.grad(loss, x, retain_graph=number < len(losses))[0]
                for number, loss in enumerate(losses, 1)], z.detach()


def downhill(gradient: Tensor) -> Tensor:
    """Minus the sign of a gradient; zero counts as positive."""
    return torch.where(gradient >= 0, -1.0, 1.0).to(gradient.dtype)


def step(options: Options, known: Known, x: Tensor) -> Tensor:
    """Size of the step in each channel of x (N, 3, H, W). -> (3, 1, 1)."""
    std = known.input_std if options.by_std else (1.0,)
    return options.epsilon / torch.tensor(std, dtype=x.dtype, device=x.device)[:, None, None]


def perturbed(options: Options, known: Known, network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """The moved input x' (N, 3, H, W), and the logits (N, K) of the images before."""
    (gradient,), z = gradients([options.temperature], network, images)
    return images + step(options, known, images) * downhill(gradient), z


def score(options: Options, known: Known, state: None, network: nn.Module, images: Tensor) -> Tensor:
    """Log of the largest tempered softmax probability. images (N, 3, H, W) -> (N,) float64, at most 0."""
    return scores([options], known, [state], network, images)[0]


def scores(points: Sequence[Options], known: Known, states: Sequence[None], network: nn.Module,
           images: Tensor) -> Tensor:
    """Those of several options, (P, N): one backward pass for each temperature, one forward pass for each step."""
    temperatures = list(dict.fromkeys(options.temperature for options in points if options.epsilon))
    found = dict(zip(temperatures, gradients(temperatures, network, images)[0] if temperatures else [], strict=True))
    return torch.stack([
        confidence(options, network, images + step(options, known, images) * downhill(found[options.temperature])
                   if options.epsilon else images) for options in points])


def confidence(options: Options, network: nn.Module, images: Tensor) -> Tensor:
    """Log of the largest tempered softmax probability of the images as they are. (N, 3, H, W) -> (N,) float64."""
    with torch.no_grad():
        return max_log_softmax(network(images).double() / options.temperature)
