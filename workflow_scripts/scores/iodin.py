"""iODIN: ODIN that changes one value of the image alone (Regmi, ASCOOD, 2025).

As in ``odin``, x' = x - epsilon sign(grad) downhill in the tempered cross-entropy of the prediction, but only at the
value, of all pixels and channels, whose gradient is largest in magnitude. score = log max_k softmax(z(x') / T)_k.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional

from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores import odin
from workflow_scripts.scores.arrays import max_log_softmax
from workflow_scripts.scores.base import Known

SPEC = ScoreSpec(needs={"network", "input_std"}, space={
    "temperature": (1.0, 10.0, 100.0, 1000.0), "epsilon": (0.0014, 0.0028)})


@dataclass(frozen=True)
class Options:
    temperature: Annotated[float, Gt(0)] = 1000.0
    """T; OpenOOD tries 1, 10, 100 and 1000."""
    epsilon: Annotated[float, Ge(0)] = 0.0014
    """Size of the step, in units of the normalised input; OpenOOD tries 0.0014 and 0.0028."""
    by_std: bool = False
    """Divide the step by the standard deviation of each channel, by which the input was divided (OpenOOD)."""


def needs(options: Options) -> frozenset[str]:
    return SPEC.needs if options.by_std else SPEC.needs - {"input_std"}


def score(options: Options, known: Known, state: None, network: nn.Module, images: Tensor) -> Tensor:
    """Log of the largest tempered softmax probability. images (N, 3, H, W) -> (N,) float64, at most 0."""
    if options.epsilon:
        with torch.enable_grad():
            x = images.detach().requires_grad_()
            z = network(x)
            loss = functional.cross_entropy(z / options.temperature, z.argmax(dim=1), reduction="sum")
            gradient = torch.autograd.grad(loss, x)[0]
        place = gradient.abs().flatten(1).argmax(dim=1, keepdim=True)
        mask = torch.zeros_like(gradient).flatten(1).scatter_(1, place, 1.0).view_as(gradient)
        downhill = torch.where(gradient >= 0, -1.0, 1.0).to(x.dtype)
        step = odin.step(odin.Options(epsilon=options.epsilon, by_std=options.by_std), known, images)
        images = images + step * downhill * mask
    with torch.no_grad():
        return max_log_softmax(network(images).double() / options.temperature)
