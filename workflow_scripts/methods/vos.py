"""Virtual outlier synthesis, VOS (Du, Wang, Cai, Li, ICLR 2022): outliers from the tails of class Gaussians.

The newest ``queue`` penultimate features of each class give its mean, and all of them one covariance. Once each queue
is full and epoch ``start`` is reached, ``sample_from`` points are drawn around each mean and the ``keep`` least likely
kept; the head's logits of features and outliers become an energy, log sum_k relu(w_k) exp(z_k) with learned w, and a
logistic layer learns to tell the two apart: L = CE(ID) + weight * L_uncertainty. Images are scored by their energy.

The ``keep`` least likely of n draws are drawn at once: with x = mean + A e the density falls with |e|, whose square is
chi-square with D degrees of freedom and independent of the direction, so that the largest of n squares are order
statistics of uniform numbers through its inverse distribution. The result has the distribution of what is left of n
draws, at 1 / n of the work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt
from scipy.special import gammainccinv
from torch import Tensor, nn
from torch.nn import functional

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.specs import MethodSpec
from workflow_scripts.methods.base import Batch, Method, Sizes
from workflow_scripts.methods.recipe import Recipe
from workflow_scripts.methods.synthesis import Queues

RIDGE = 1e-4  # added to the covariance's diagonal, as its authors do


SPEC = MethodSpec(
    late_from="start",
    late={"weight": 0.1, "sample_from": 1, "keep": 1},
    gathered=("queue",),
    carried=("queues.",),
    early_form="cross_entropy",
)


@dataclass(frozen=True)
class Options:
    start: Annotated[int, Ge(0)] = 40
    """Epochs before outliers are synthesised."""
    queue: Annotated[int, Gt(1)] = 1000
    """Features kept per class (sample_number)."""
    sample_from: Annotated[int, Gt(0)] = 10_000
    """Draws per class."""
    keep: Annotated[int, Gt(0)] = 1
    """Least likely draws kept per class (select)."""
    weight: Annotated[float, Ge(0)] = 0.1
    """Weight of the outliers' loss (loss_weight)."""


def farthest(classes: int, width: int, draws: int, keep: int, generator: torch.Generator) -> Tensor:
    """The ``keep`` longest of ``draws`` standard normal vectors, longest first. -> (classes, keep, width) float32."""
    u = torch.rand(classes, keep, dtype=torch.float64, generator=generator).clamp_min(1e-300)
    left = draws - torch.arange(keep, dtype=torch.float64)
    tail = -torch.expm1((u.log() / left).cumsum(1))  # 1 - the largest uniforms: what lies beyond
    squares = torch.from_numpy(2 * gammainccinv(width / 2, tail.numpy()))
    directions = torch.randn(classes, keep, width, generator=generator)
    return functional.normalize(directions, dim=2) * squares.sqrt().to(directions.dtype)[..., None]


class VOS(Method):
    """See the module's docstring."""

    def __init__(self, options: Options):
        super().__init__()
        self.options = options

    def check(self, recipe: Recipe) -> None:
        """Raises OODError when more is kept than drawn, or outliers would come after the end."""
        options, epochs = self.options, recipe.training.epochs
        if options.keep > options.sample_from:
            raise OODError(f"options.keep: {options.keep} is more than options.sample_from ({options.sample_from})")
        if options.start >= epochs:
            raise OODError(f"options.start: outliers come after epoch {options.start}, but training.epochs is {epochs}")

    def setup(self, network: nn.Module, sizes: Sizes) -> None:
        classes, width = network.head.out_features, network.head.in_features
        self.queues = Queues(classes, self.options.queue, width, products=False)
        self.log_weights = nn.Linear(classes, 1, bias=False)
        nn.init.uniform_(self.log_weights.weight)
        self.logistic = nn.Linear(1, 2)

    def parameter_groups(self, network: nn.Module) -> list[dict[str, Any]]:
        return [{"params": [*network.parameters(), *self.log_weights.parameters(), *self.logistic.parameters()]}]

    def energy(self, logits: Tensor) -> Tensor:
        """log sum_k relu(w_k) exp(z_k). (B, K) -> (B,)."""
        weights = self.log_weights.weight[0].relu()
        return (logits + weights.clamp_min(1e-30).log()).logsumexp(1)

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        features = network.features(batch.images)
        logits = network.head(features)
        loss = functional.cross_entropy(logits, batch.labels)
        self.queues.push(features.detach(), batch.on_host())
        if batch.epoch >= self.options.start and self.queues.full():
            outliers = self.synthesise(batch)
            energies = torch.cat((self.energy(logits), self.energy(network.head(outliers))))
            target = torch.cat((torch.ones_like(batch.labels), batch.labels.new_zeros(len(outliers))))
            loss = loss + self.options.weight * functional.cross_entropy(self.logistic(energies[:, None]), target)
        return loss, logits

    @torch.no_grad()
    def synthesise(self, batch: Batch) -> Tensor:
        """Outliers of all classes. -> (C keep, D)."""
        options, queues = self.options, self.queues
        rows = queues.unit * queues.norm[..., None]  # (C, N, D)
        mean = rows.mean(1)
        centred = (rows - mean[:, None]).flatten(0, 1)
        covariance = centred.T @ centred / len(centred)
        covariance.diagonal().add_(RIDGE)
        # what cannot be factored, as after a step that went wrong, gives NaN, and the loop ends at its loss; on a GPU
        # torch.linalg.cholesky would wait to see whether it can be
        root, failed = torch.linalg.cholesky_ex(covariance)
        root = root.masked_fill(failed > 0, torch.nan)
        generator = torch.Generator().manual_seed(
            ((batch.seed * 1_000_003 + batch.epoch) * 1_000_003 + batch.step) & (2**63 - 1))
        far = farthest(*mean.shape, options.sample_from, options.keep, generator).to(mean, non_blocking=True)
        return (mean[:, None] + far @ root.T).flatten(0, 1)


def build(options: Options, released: tuple[str, ...]) -> VOS:
    return VOS(options)
