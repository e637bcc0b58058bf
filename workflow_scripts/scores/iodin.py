"""iODIN: ODIN that changes one value of the image alone (Regmi, ASCOOD, 2025).

As in ``odin``, x' = x - epsilon sign(grad) downhill in the tempered cross-entropy of the prediction, but only at the
value, of all pixels and channels, whose gradient is largest in magnitude. score = log max_k softmax(z(x') / T)_k.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores import odin
from workflow_scripts.scores.base import Known

SPEC = ScoreSpec(family="gradient", needs={"network", "input_std"}, space={
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
    return scores([options], known, [state], network, images)[0]


def scores(points: Sequence[Options], known: Known, states: Sequence[None], network: nn.Module,
           images: Tensor) -> Tensor:
    """Those of several options, (P, N): one backward pass for each temperature, one forward pass for each step."""
    temperatures = list(dict.fromkeys(options.temperature for options in points if options.epsilon))
    steps = {}
    if temperatures:
        for temperature, gradient in zip(temperatures, odin.gradients(temperatures, network, images)[0], strict=True):
            place = gradient.abs().flatten(1).argmax(dim=1, keepdim=True)
            mask = torch.zeros_like(gradient).flatten(1).scatter_(1, place, 1.0).view_as(gradient)
            steps[temperature] = odin.downhill(gradient) * mask

    def one(options: Options) -> Tensor:
        plain = odin.Options(options.temperature, options.epsilon, options.by_std)
        moved = (images + odin.step(plain, known, images) * steps[options.temperature] if options.epsilon else images)
        return odin.confidence(plain, network, moved)

    return torch.stack([one(options) for options in points])
