"""ODIN of HIMPLoS's logits, as the authors of HIMPLoS combine the two (their code of 2023, not the released one).

The logits are those of ``himplos``: masked for the predicted class y, clipped and scaled by the cosine to its
prototype, which the gradient passes through, too. The step is downhill in their cross-entropy with the class c that
the logits before scaling predict; at x' mask and prototype are those of c. score = log max_k softmax(z(x') / T)_k.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn
from torch.nn import functional

from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores import himplos, odin
from workflow_scripts.scores.arrays import float64, max_log_softmax
from workflow_scripts.scores.base import Head, Known

SPEC = ScoreSpec(family="gradient", needs={"network", "statistics"})


@dataclass(frozen=True)
class Options:
    temperature: Annotated[float, Gt(0)] = 800.0
    """T."""
    epsilon: Annotated[float, Ge(0)] = 0.004
    """Size of the step, in units of the normalised input."""
    p: Annotated[float, Interval(ge=0, le=100)] = 60.0
    """Percentile of a head row below which weights are masked, as in `himplos`."""
    clip: Annotated[float, Gt(0)] = 1.6
    """Upper clip of the features (lambda), as in `himplos`."""
    cosine: bool = True
    """Scale the logits by the cosine to the prototype (smoothing)."""


def fit(options: Options, known: Known, network: nn.Module, batches: object) -> tuple[Head, Tensor]:
    """The head, and the masks (K, D) bool; no train image is read."""
    head = Head(network.head.weight.detach(), network.head.bias.detach())
    return head, himplos.head_mask(options.p, head)


def score(options: Options, known: Known, state: tuple[Head, Tensor], network: nn.Module, images: Tensor) -> Tensor:
    """Log of the largest tempered softmax probability. images (N, 3, H, W) -> (N,) float64, at most 0."""
    head, masks = state

    def logits(h: Tensor, classes: Tensor, means: Tensor | None) -> Tensor:
        return himplos.logits(head, classes, h, h.clip(max=options.clip), masks, means) / options.temperature

    means = known.statistics.class_means if options.cosine else None
    with torch.enable_grad():
        x = images.detach().requires_grad_()
        h = float64(network.features(x))
        classes = himplos.predicted(head, h)
        target = logits(h, classes, None).argmax(dim=1)
        loss = functional.cross_entropy(logits(h, classes, means), target, reduction="sum")
        images = images + options.epsilon * odin.downhill(torch.autograd.grad(loss, x)[0])
    with torch.no_grad():
        return max_log_softmax(logits(float64(network.features(images)), target, means))
