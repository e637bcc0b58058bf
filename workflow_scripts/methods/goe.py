"""Generalized Outlier Exposure, G-OE (Koo et al., Neurocomputing 2024): outlier exposure with filter and RandomMixup.

Each step has B ID images and M outliers.

1. Filter: in eval mode and without gradient, the outliers that look like ID are found and take part in no loss.
2. RandomMixup: the pool is the B ID images (one-hot labels) and the first B outliers (uniform labels). Two permutations
   a, b of the pool and one lambda ~ Beta(alpha, beta) give 2B images lambda X[a] + (1 - lambda) X[b], with labels
   mixed alike; a mixture of which either part was filtered out is left out.
3. One pass in train mode over [B ID; 2B mixtures; M outliers], which share batch norm, and
   L = CE(ID) + weight * L_mix + oe_weight * L_oe, where L_oe is that of outlier exposure on the unmixed outliers.

The paper's full text was not at hand: this is what the authors' code computes, its filters of 2022 (``static``, that of
the published table, and ``adaptive``) and that of 2024 (``top``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional

from workflow_scripts.core import plugins
from workflow_scripts.core.specs import MethodSpec
from workflow_scripts.methods.base import Batch, Method
from workflow_scripts.methods.outlier_exposure import uniform_cross_entropy
from workflow_scripts.methods.recipe import Recipe
from workflow_scripts.models.base import eval_mode

SPEC = MethodSpec(
    defects={
        "goe.2g-4": "the validation images are augmented",
        "goe.2g-5": "all trials share one seed",
    },
    outliers="always",
    at_most=(("k", "filter", "top", "outliers.batch_size"), ("k", "filter", "static", "training.batch_size")),
)


@dataclass(frozen=True)
class Options:
    filter: Literal["top", "static", "adaptive"] = "static"
    """`static` (2022, of the published table): the outliers at least as confident as the ID image of rank k from below;
    `adaptive` (2022): those at least as confident as the mean ID image; `top` (2024): the k most confident of the
    batch."""
    confidence: Literal["msp", "margin", "entropy"] = "msp"
    """What the filter ranks by: the largest softmax probability, its lead over the second, or the negative entropy."""
    k: Annotated[int, Ge(0)] = 20
    """Rank among the ID images (`static`), or outliers removed per batch (`top`; the code of 2024 has 8 by default); 0:
    no filter. Not read by `adaptive`."""
    weight: Annotated[float, Ge(0)] = 0.5
    """Weight of the mixtures' loss."""
    oe_weight: Annotated[float, Ge(0)] = 0.5
    """Weight of the outliers' loss."""
    alpha: float = 1.0
    """First parameter of lambda's Beta distribution; 0 or less: lambda is 1."""
    beta: Annotated[float, Gt(0)] = 1.0
    """Second parameter of lambda's Beta distribution."""
    divide: Literal["all", "kept"] = "all"
    """Divisor of the two means: all items, so that filtering shrinks the loss (as released), or those kept."""


def confidence(logits: Tensor, kind: str) -> Tensor:
    """Confidence of each row, by the names of :class:`Options`; higher = more ID. (N, K) -> (N,)."""
    p = logits.softmax(1)
    if kind == "msp":
        return p.amax(1)
    if kind == "margin":
        first, second = p.topk(2, dim=1).values.unbind(1)
        return first - second
    return (p * logits.log_softmax(1)).sum(1)


def most_confident(outliers: Tensor, k: int) -> Tensor:
    """The 2024 filter: True for the ``k`` largest and all that tie with the last of them. (M,) -> (M,)."""
    return outliers >= outliers.topk(k).values[-1]


def as_confident_as_id(outliers: Tensor, id_values: Tensor, rank: int | None) -> Tensor:
    """The 2022 filter: True for outliers not below the ``rank``-th smallest ID value, or below the ID mean for
    ``None``. (M,), (B,) -> (M,)."""
    if rank is None:
        return outliers >= id_values.mean()
    return outliers >= id_values.topk(min(rank, len(id_values)), largest=False).values[-1]


class Mixing(NamedTuple):
    """How n images are mixed: ``lam`` * pool[``first``] + (1 - ``lam``) * pool[``second``]; both (n,) int64."""

    lam: float
    first: Tensor
    second: Tensor

    def __call__(self, pool: Tensor) -> Tensor:
        """(n, ...) -> (n, ...)."""
        return torch.lerp(pool[self.second], pool[self.first], self.lam)


def masked_mean(values: Tensor, keep: Tensor, divide: str) -> Tensor:
    """Sum over the kept, divided by all or by the kept (0 where nothing is kept). (n,), (n,) bool -> scalar."""
    kept = (values * keep).sum()
    return kept / (len(values) if divide == "all" else keep.sum().clamp_min(1))


class GOE(Method):
    """See the module's docstring."""

    outliers = True

    def __init__(self, options: Options):
        super().__init__()
        self.options = options

    def check(self, recipe: Recipe) -> None:
        """Refuse a k above the batch that it counts in.

        Raises:
            OODError: naming `options.k`.
        """
        plugins.within(SPEC.at_most, self.options, recipe.model_dump(), "")

    def keep(self, network: nn.Module, batch: Batch) -> Tensor:
        """Outliers that the filter lets pass. -> (M,) bool."""
        options = self.options
        if options.k == 0 and options.filter != "adaptive":
            return torch.ones(len(batch.outliers), dtype=torch.bool, device=batch.outliers.device)
        relative = options.filter != "top"  # to the ID images, which are then looked at too
        with eval_mode(network):
            images = torch.cat((batch.images, batch.outliers)) if relative else batch.outliers
            values = confidence(network(images), options.confidence)
        if not relative:
            return ~most_confident(values, options.k)
        id_values, ood_values = values.split((len(batch.images), len(batch.outliers)))
        return ~as_confident_as_id(ood_values, id_values, options.k if options.filter == "static" else None)

    def mixing(self, batch: Batch, count: int) -> Mixing:
        """The step's lambda and permutations of ``count`` images, a function of (seed, epoch, step)."""
        rng = np.random.default_rng((batch.seed, batch.epoch, batch.step))
        lam = rng.beta(self.options.alpha, self.options.beta) if self.options.alpha > 0 else 1.0
        orders = torch.from_numpy(np.stack((rng.permutation(count), rng.permutation(count))))
        return Mixing(float(lam), *orders.to(batch.images.device, non_blocking=True))

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        options, n_id = self.options, len(batch.images)
        keep = self.keep(network, batch)
        paired = min(n_id, len(batch.outliers))
        pool = torch.cat((batch.images, batch.outliers[:paired]))  # (2B, 3, H, W)
        usable = torch.cat((torch.ones(n_id, dtype=torch.bool, device=keep.device), keep[:paired]))
        mix = self.mixing(batch, len(pool))
        logits = network(torch.cat((batch.images, mix(pool), batch.outliers)))
        z, z_mixed, z_out = logits.split((n_id, len(pool), len(batch.outliers)))

        classes = logits.shape[1]
        labels = torch.cat((functional.one_hot(batch.labels, classes).to(logits.dtype),
                            logits.new_full((paired, classes), 1 / classes)))
        mixed = masked_mean(functional.cross_entropy(z_mixed, mix(labels), reduction="none"),
                            usable[mix.first] & usable[mix.second], options.divide)
        exposure = masked_mean(uniform_cross_entropy(z_out), keep, options.divide)
        loss = functional.cross_entropy(z, batch.labels) + options.weight * mixed + options.oe_weight * exposure
        return loss, z


def build(options: Options, released: tuple[str, ...]) -> GOE:
    return GOE(options)
