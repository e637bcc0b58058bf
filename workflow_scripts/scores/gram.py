"""Gram: how far the Gram matrices of the feature maps leave the ranges of a class (Sastry & Oore, ICML 2020).

Of the maps F (channels, places) of each stage l and each power p, the row sums of the Gram matrix of F^p, to the power
1 / p, are compared with their least and largest value over the ID train images of the predicted class: deviation =
sum (min - g)_+ / |min| + (g - max)_+ / |max|. Stages are divided by their mean deviation on held-out ID train images;
score = minus the sum. A row sum is F_i^p times the sum of all rows, so no Gram matrix is made. Maps are divided by
their largest value first, which the power 1 / p undoes, so that no power overflows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt, MinLen
from torch import Tensor, nn

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores import mahalanobis_ensemble
from workflow_scripts.scores.base import Known

SPEC = ScoreSpec(family="distance", needs={"network", "train_labels"}, least=20, space={"by_confidence": (False, True)})
EPSILON = 1e-6  # added to the bounds that a deviation is divided by


@dataclass(frozen=True)
class Options:
    powers: Annotated[tuple[Annotated[int, Gt(0)], ...], MinLen(1)] = (1, 2, 3, 4, 5)
    """Powers p; 1 to 10 in the paper, 1 to 5 in OpenOOD."""
    held_out: Annotated[int, Gt(3)] = 1000
    """ID train images that the mean deviations are of, at most a fifth of them."""
    by_confidence: bool = False
    """Divide by the largest softmax probability, as the released code does and the paper does not say."""


@dataclass(frozen=True)
class State:
    """``bounds`` of each stage: least and largest (K, P, C_l); ``expected`` deviation of each stage (L,)."""

    bounds: list[tuple[Tensor, Tensor]]
    expected: Tensor


def row_sums(maps: Tensor, powers: tuple[int, ...]) -> Tensor:
    """Of the Gram matrices of each power. (N, C, h, w) -> (N, P, C)."""
    x = maps.flatten(2)
    scale = x.abs().amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)
    x = x / scale
    sums = []
    for p in powers:
        raised = x**p
        found = (raised @ raised.sum(dim=1).unsqueeze(2)).squeeze(2)
        sums.append(found.sign() * found.abs() ** (1 / p))
    return torch.stack(sums, dim=1) * scale**2


def deviation(sums: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Relative way out of the bounds, summed. (N, P, C) each -> (N,) float64."""
    below = (low - sums).clamp(min=0) / (low + EPSILON).abs()
    above = (sums - high).clamp(min=0) / (high + EPSILON).abs()
    return (below + above).double().sum(dim=(1, 2))


def statistics(powers: tuple[int, ...], network: nn.Module, images: Tensor) -> tuple[list[Tensor], Tensor]:
    """Row sums of each stage, (N, P, C_l) each, and the logits (N, K)."""
    sums = []
    for maps in network.stages(images):
        sums.append(row_sums(maps, powers))
    return sums, network.head(maps.mean(dim=(2, 3)))


def fit(options: Options, known: Known, network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> State:
    """Bounds of each class, and the expected deviations.

    Raises:
        OODError: too few train images, or a class without one.
    """
    classes = network.head.out_features
    counts = torch.bincount(torch.from_numpy(known.train_labels), minlength=classes)
    if (counts == 0).any():
        raise OODError(f"train set: class {int(counts.argmin())} has no image; every class needs at least one")
    aside = torch.from_numpy(mahalanobis_ensemble.held_out(
        mahalanobis_ensemble.Options(held_out=options.held_out), known.train_labels))
    bounds: list[tuple[Tensor, Tensor]] = []
    kept: list[tuple[list[Tensor], Tensor]] = []
    start = 0
    with torch.no_grad():
        for x, labels in batches:
            mask = aside[start:start + len(x)].to(x.device)
            start += len(x)
            sums, _ = statistics(options.powers, network, x)
            kept.append(([part[mask] for part in sums], labels[mask]))
            if not bounds:
                shapes = [(classes, *part.shape[1:]) for part in sums]
                bounds = [(x.new_full(shape, torch.inf), x.new_full(shape, -torch.inf)) for shape in shapes]
            for (low, high), part in zip(bounds, sums, strict=True):
                inside, index = part[~mask], labels[~mask]
                place = index[:, None, None].expand_as(inside)
                low.scatter_reduce_(0, place, inside, "amin")
                high.scatter_reduce_(0, place, inside, "amax")
    labels = torch.cat([part for _, part in kept])
    expected = []
    for number, (low, high) in enumerate(bounds):
        mean = deviation(torch.cat([sums[number] for sums, _ in kept]), low[labels], high[labels]).mean()
        expected.append(torch.where(mean > 0, mean, 1.0))
    return State(bounds, torch.stack(expected))


def score(options: Options, known: Known, state: State, network: nn.Module, images: Tensor) -> Tensor:
    """Minus the deviation. images (N, 3, H, W) -> (N,) float64, at most 0."""
    return scores([options], known, [state], network, images)[0]


def scores(points: Sequence[Options], known: Known, states: Sequence[State], network: nn.Module,
           images: Tensor) -> Tensor:
    """Those of several options, (P, N); one forward pass for all with the same powers."""
    with torch.no_grad():
        found = {powers: statistics(powers, network, images) for powers in {options.powers for options in points}}
        return torch.stack([_score(options, state, *found[options.powers])
                            for options, state in zip(points, states, strict=True)])


def _score(options: Options, state: State, sums: list[Tensor], z: Tensor) -> Tensor:
    predicted = z.argmax(dim=1)
    total = torch.zeros(len(z), dtype=torch.float64, device=z.device)
    for part, (low, high), expected in zip(sums, state.bounds, state.expected, strict=True):
        total += deviation(part, low[predicted], high[predicted]) / expected
    if options.by_confidence:
        total /= z.double().softmax(dim=1).amax(dim=1)
    return -total
