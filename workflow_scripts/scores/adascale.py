"""AdaSCALE: SCALE with a percentile of each image's own, from how its features bear a change (Regmi, 2025).

The image is changed a little, x' = x + step sign(grad) at the share ``o`` of its values with the smallest gradient of
its largest logit. Q' = sum of the changed features over the k1 strongest units, plus lambda times that of the changes
|h - h'| over the k2 strongest ones: large for OOD images. With F its distribution function over ID train images, the
percentile is p = p_min + (1 - F(Q')) (p_max - p_min) and r the sum of the feature over that of its values above p.
Variant A: energy of the head at h exp(r); variant L: energy of the logits times r^2. The images of F are held-out
validation images in the released code.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores.arrays import logsumexp
from workflow_scripts.scores.base import Known

SPEC = ScoreSpec(family="shaped features", needs={"network", "train_labels"}, space={
    "p_min": (60.0, 65.0, 70.0, 75.0, 80.0, 85.0), "p_max": (65.0, 70.0, 75.0, 80.0, 85.0, 90.0, 95.0, 99.0)})


@dataclass(frozen=True)
class Options:
    variant: Literal["a", "l"] = "a"
    """`a` scales the features, `l` the logits."""
    p_min: Annotated[float, Interval(gt=0, lt=100)] = 75.0
    """Least percentile; 80 for ImageNet ResNet-50. OpenOOD tries 60 to 95."""
    p_max: Annotated[float, Interval(gt=0, lt=100)] = 85.0
    """Largest percentile; 85 for ImageNet ResNet-50. OpenOOD tries 65 to 99."""
    k1: Annotated[float, Interval(gt=0, le=100)] = 5.0
    """Percentage of units whose changed features are summed."""
    k2: Annotated[float, Interval(gt=0, le=100)] = 1.0
    """Percentage of units whose changes are summed."""
    lam: Annotated[float, Ge(0)] = 10.0
    """Weight of the changes (lambda)."""
    o: Annotated[float, Interval(gt=0, le=1)] = 0.05
    """Share of the image's values that are changed."""
    step: Annotated[float, Gt(0)] = 0.5
    """Size of the change, in units of the normalised input."""
    images: Annotated[int, Gt(0)] = 5000
    """ID train images of the distribution function, evenly spaced; 5000 in the released code."""

    def __post_init__(self) -> None:
        if self.p_min > self.p_max:
            raise ValueError(f"the least percentile p_min, {self.p_min}, is above the largest, p_max, {self.p_max}; "
                             "swap them")


def changed(options: Options, network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Features of the images and of the changed images. (N, 3, H, W) -> (N, D), (N, D)."""
    with torch.enable_grad():
        x = images.detach().requires_grad_()
        h = network.features(x)
        gradient = torch.autograd.grad(network.head(h).amax(dim=1).sum(), x)[0]
    weak = gradient.abs().flatten(1)
    count = max(int(weak.shape[1] * options.o), 1)
    mask = torch.zeros_like(weak).scatter_(1, weak.topk(count, dim=1, largest=False).indices, 1.0)
    with torch.no_grad():
        return h.detach(), network.features(images + options.step * gradient.sign() * mask.view_as(images))


def sensitivity(options: Options, h: Tensor, other: Tensor) -> Tensor:
    """Q'. Features of the images and of the changed images (N, D) -> (N,) float64."""
    first, second = (max(int(h.shape[1] * k / 100), 1) for k in (options.k1, options.k2))
    order = h.topk(max(first, second), dim=1).indices
    strong = other.relu().gather(1, order[:, :first]).double().sum(dim=1)
    shift = (h - other).abs().gather(1, order[:, :second]).double().sum(dim=1)
    return strong + options.lam * shift


def fit(options: Options, known: Known, network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """Q' of ID train images, rising. -> (M,) float64."""
    every = -(-len(known.train_labels) // options.images)
    found, start = [], 0
    for x, _ in batches:
        chosen = x[(-start) % every::every]
        start += len(x)
        if len(chosen):
            found.append(sensitivity(options, *changed(options, network, chosen)))
    return torch.cat(found).sort().values


def score(options: Options, known: Known, state: Tensor, network: nn.Module, images: Tensor) -> Tensor:
    """Energy of the scaled features or logits. images (N, 3, H, W) -> (N,) float64."""
    return scores([options], known, [state], network, images)[0]


def scores(points: Sequence[Options], known: Known, states: Sequence[Tensor], network: nn.Module,
           images: Tensor) -> Tensor:
    """Those of several options, (P, N); the images are changed once for all with the same o and step."""
    found: dict[tuple[float, float], tuple[Tensor, Tensor]] = {}
    for options in points:
        if (options.o, options.step) not in found:
            found[options.o, options.step] = changed(options, network, images)
    return torch.stack([_score(options, state, network, *found[options.o, options.step])
                        for options, state in zip(points, states, strict=True)])


def _score(options: Options, state: Tensor, network: nn.Module, h: Tensor, other: Tensor) -> Tensor:
    rank = torch.searchsorted(state, sensitivity(options, h, other), right=True)
    percentile = options.p_min + (1 - rank.double() / len(state)) * (options.p_max - options.p_min)
    h = h.double()
    positive, width = h.relu(), h.shape[1]
    kept = (width - torch.round(width * percentile / 100).long()).clamp(min=1)
    largest = positive.sort(dim=1, descending=True).values.cumsum(dim=1)
    top = largest.gather(1, kept[:, None] - 1)
    r = torch.where(top > 0, positive.sum(dim=1, keepdim=True), 1.0) / torch.where(top > 0, top, 1.0)
    weight, bias = network.head.weight.double(), network.head.bias.double()
    z = h @ weight.T
    return logsumexp(z * r.exp() + bias if options.variant == "a" else (z + bias) * r**2)
