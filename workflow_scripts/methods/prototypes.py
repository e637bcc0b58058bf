"""Class prototypes on the unit sphere, and the two losses that CIDER and NPOS shape features with.

A prototype mu_c follows the projections z of its class: mu_c <- normalise(m mu_c + (1 - m) z), for one image of the
batch after the other (Ming et al., CIDER, ICLR 2023). Dispersion drives the prototypes apart, compactness draws the
projections to theirs.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from workflow_scripts.methods.synthesis import ranks


def follow(prototypes: Tensor, z: Tensor, labels: Tensor, momentum: float) -> Tensor:
    """The prototypes after the batch, in which each image moves its class's, in order; differentiable in ``z``.

    The order within a class matters, since each move is normalised; classes do not touch each other, so that all of
    them move at once, as often as the most frequent class has images.

    Args:
        prototypes: (C, d), of length 1.
        z: (B, d).
        labels: (B,) int64, best on the CPU: how many moves there are is asked of them.
    """
    classes = len(prototypes)
    labels = labels.cpu()
    rank, counts = ranks(labels, classes)
    moves = int(counts.max())
    rank, labels, counts = (x.to(z.device, non_blocking=True) for x in (rank, labels, counts))
    table = z.new_zeros(moves, classes, z.shape[1]).index_put((rank, labels), z)
    there = torch.arange(moves, device=z.device)[:, None] < counts  # (moves, C)
    for step, moved in zip(table.unbind(0), there.unsqueeze(-1).unbind(0), strict=True):
        new = functional.normalize(momentum * prototypes + (1 - momentum) * step, dim=1)
        prototypes = torch.where(moved, new, prototypes)
    return prototypes


def class_directions(z: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Mean of each class, brought to length 1: where prototypes start. (M, d), (M,) -> (C, d); a class that is not
    there has a zero row."""
    return functional.normalize(z.new_zeros(classes, z.shape[1]).index_add_(0, labels, z), dim=1)


def dispersion(prototypes: Tensor, temperature: float) -> Tensor:
    """tau / 0.1 * mean_i log( sum over j != i of exp(mu_i . mu_j / tau) / (C - 1) ). (C, d) -> scalar."""
    classes = len(prototypes)
    own = torch.eye(classes, dtype=torch.bool, device=prototypes.device)
    logits = (prototypes @ prototypes.T / temperature).masked_fill(own, -torch.inf)
    return temperature / 0.1 * (logits.logsumexp(1) - math.log(classes - 1)).mean()


def compactness(z: Tensor, prototypes: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """tau / 0.07 (the release's base) times the cross-entropy of z . mu / tau. (B, d), (C, d), (B,) -> scalar."""
    return temperature / 0.07 * functional.cross_entropy(z @ prototypes.T / temperature, labels)
