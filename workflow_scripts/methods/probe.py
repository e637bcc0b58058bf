"""A linear classifier on a frozen network's features: the head of a network that was trained without one.

Multinomial logistic regression on the features of the train images as they are (no augmentation, eval mode), by L-BFGS
from zero: mean cross-entropy plus L2 / 2 |W|^2, where features are centred and divided by their mean distance from the
centre, so that one penalty fits every network. The problem is convex and nothing in it is random. Centre and scale are
then folded into weight and bias, so that the head reads plain features.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from workflow_scripts.core.errors import OODError
from workflow_scripts.models.base import eval_mode

L2, STEPS = 1e-4, 200


def fit(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Weight (K, D) and bias (K,) of the classifier. (M, D) float32, (M,) int64 in 0..K-1.

    Raises:
        OODError: a feature that is not finite.
    """
    if not features.isfinite().all():
        row = int((~features.isfinite()).any(1).nonzero()[0, 0])
        raise OODError(f"linear probe: the features of train image {row} are not finite; the training has diverged, "
                       "lower training.lr")
    centre = features.mean(0)
    x = features - centre
    scale = torch.linalg.vector_norm(x, dim=1).mean().clamp_min(1e-12)
    x /= scale
    weight = x.new_zeros(classes, x.shape[1]).requires_grad_()
    bias = x.new_zeros(classes).requires_grad_()
    optimiser = torch.optim.LBFGS([weight, bias], lr=1, max_iter=STEPS, history_size=10, tolerance_grad=1e-6,
                                  line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = functional.cross_entropy(torch.addmm(bias, x, weight.T), labels) + L2 / 2 * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimiser.step(closure)
    weight, bias = weight.detach() / scale, bias.detach()
    return weight, bias - weight @ centre


def fit_head(network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Replace ``network.head`` by the probe of these (inputs, labels). -> the share of them it classifies correctly."""
    with eval_mode(network):
        pairs = [(network.features(x), labels) for x, labels in batches]
    features, labels = (torch.cat(column) for column in zip(*pairs, strict=True))
    head = network.head
    weight, bias = fit(features.float(), labels, head.out_features)
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(bias)
        return float((head(features).argmax(1) == labels).float().mean())
