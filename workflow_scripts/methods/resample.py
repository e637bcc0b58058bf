"""Learning resampling weights of a background (background data resampling, CVPR 2020, step 2): a min-max game.

Each of N background images has a real parameter theta_i and the weight w_i = softplus(theta_i). The network descends
on CE(ID) + c * sum_i p_i KL_i with p_i = w_i / sum w, the parameters ascend on it. Half of p_i is in the sampling and
half in the loss: an epoch's images are drawn with probability q_i ~ sqrt(w_i), with replacement, by the weights at its
start, and in a batch each counts

    a_i = r sqrt(w_i) / m,    m = mean_j w_j,    r = mean_j sqrt(w_j),

so that E_q[a_i KL_i] = sum_i p_i KL_i at the start of an epoch. Network and parameters are updated from one forward
and one backward pass: the network's loss takes a_i as constant, and the gradient of the parameters, whose KL_i are
constant, has a closed form (:meth:`ImageWeights.ascend`): of length N are theta, its momentum, w and the snapshots.

Changing both with the gradients of one sum of both losses, as a workaround that circulates for the release does, makes
the background's terms cancel: nothing is learned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.specs import MethodSpec
from workflow_scripts.methods import background
from workflow_scripts.methods.base import Batch, Sizes

SPEC = MethodSpec(outliers="always", learns_weights=True)

BLOCK = 2**17  # parameters that are worked on together, so that a block stays in the CPU's cache
BINS, DECADES = 120, 3.0  # histogram of log10(w_i / mean w) from -3 to 3


@dataclass(frozen=True)
class Options:
    coefficient: Annotated[float, Ge(0)] = 0.5
    """Weight c of the background's term."""
    divergence: Literal["uniform_kl", "entropy"] = "uniform_kl"
    """`uniform_kl`: KL(U || softmax); `entropy`: KL(softmax || U), the release's --maxent."""
    background_bn: Literal["eval", "train"] = "eval"
    """`eval`: batch norm keeps the pretrained statistics and dropout is off, as released; `train`: as usual."""
    lr_weights: Annotated[float, Gt(0)] = 100.0
    """Learning rate of theta; it has no schedule and no weight decay."""
    momentum_weights: Annotated[float, Ge(0), Lt(1)] = 0.9
    """Momentum of theta."""
    snapshots: tuple[int, ...] = (1,)
    """Epochs after which theta is kept in the training record, beside the last one."""


class ImageWeights(nn.Module):
    """theta of N images, their sampling and their updates. All passes go block by block.

    Args:
        count: N.
        lr, momentum: of the ascent.
    """

    def __init__(self, count: int, lr: float, momentum: float):
        super().__init__()
        self.lr, self.momentum = lr, momentum
        self.register_buffer("theta", torch.zeros(count))
        self.register_buffer("velocity", torch.zeros(count))
        self.register_buffer("weights", torch.zeros(count))
        """softplus(theta), kept since each step needs it before and after its change."""
        self.register_buffer("means", torch.zeros(2, dtype=torch.float64))
        """mean w, mean sqrt(w)."""
        self.measure()

    def blocks(self) -> list[slice]:
        size = len(self.theta) if self.theta.is_cuda else BLOCK
        return [slice(start, start + size) for start in range(0, len(self.theta), size)]

    @torch.no_grad()
    def measure(self) -> None:
        """Set ``weights`` and ``means`` from theta."""
        total = torch.zeros_like(self.means)
        for block in self.blocks():
            total += _sums(self.weights[block].copy_(softplus(self.theta[block])))
        self.means.copy_(total / len(self.theta))

    @torch.no_grad()
    def factors(self, index: Tensor) -> Tensor:
        """a_i of these images. (M,) int64 -> (M,)."""
        mean, root = self.means.to(self.theta.dtype)
        return root / mean * self.weights[index].sqrt()

    @torch.no_grad()
    def draw(self, uniforms: Tensor) -> Tensor:
        """Image numbers drawn with probability q_i ~ sqrt(w_i), by the inverse of the distribution in float64.

        Args:
            uniforms: (n,) float64 in [0, 1), on CPU.

        Returns:
            (n,) int64 on CPU, in the order of ``uniforms``.
        """
        blocks = self.blocks()
        sums = torch.stack([self.weights[b].sqrt().sum(dtype=torch.float64) for b in blocks]).cpu()
        ends = sums.cumsum(0)
        target, order = (uniforms * ends[-1]).sort()
        numbers = torch.empty(len(target), dtype=torch.int64)
        bounds = [0, *torch.searchsorted(target, ends[:-1]).tolist(), len(target)]
        for block, first, last, before in zip(blocks, bounds[:-1], bounds[1:], (ends - sums).tolist(), strict=True):
            if first < last:
                cumulative = self.weights[block].sqrt().cumsum(0, dtype=torch.float64).cpu()
                found = torch.searchsorted(cumulative, target[first:last] - before, right=True)
                numbers[first:last] = block.start + found.clamp_(max=len(cumulative) - 1)
        return torch.empty_like(numbers).scatter_(0, order, numbers)

    @torch.no_grad()
    def ascend(self, index: Tensor, distances: Tensor, coefficient: float) -> None:
        """One step of theta up the gradient of L = coefficient * mean_i a_i KL_i, with momentum.

        With B images and S = sum_i KL_i sqrt(w_i),

            dL/dw_j = coefficient / B * (S / (m N) * (1 / (2 sqrt w_j) - r / m) + [j drawn] KL_j r / (2 m sqrt w_j))

        and dw_j/dtheta_j = sigmoid(theta_j). The first part concerns every image: those that were not drawn go down.

        Args:
            index: (M,) int64 image numbers, repetitions count each.
            distances: (M,) KL_i.
        """
        scale = coefficient / len(index)
        drawn = self.weights[index]
        mean, root = self.means.to(self.theta.dtype)
        common = scale * (distances * drawn.sqrt()).sum() / (mean * len(self.theta))
        share, down = common / 2, common * root / mean
        own = scale * distances * root / (2 * mean * drawn.sqrt()) * self.theta[index].sigmoid()
        index, order = index.sort()
        own = own[order]
        blocks = self.blocks()
        bounds = [0]  # of one block, as on a GPU, which then need not be asked
        if len(blocks) > 1:
            bounds = torch.searchsorted(index, torch.tensor([b.start for b in blocks], device=index.device)).tolist()
        total = torch.zeros_like(self.means)
        for block, first, last in zip(blocks, bounds, [*bounds[1:], len(index)], strict=True):
            theta, velocity, weights = self.theta[block], self.velocity[block], self.weights[block]
            gradient = weights.rsqrt().mul_(share).sub_(down).mul_(theta.sigmoid())
            velocity.mul_(self.momentum).add_(gradient)
            velocity.index_add_(0, index[first:last] - block.start, own[first:last])
            theta.add_(velocity, alpha=self.lr)
            total += _sums(weights.copy_(softplus(theta)))
        self.means.copy_(total / len(self.theta))

    @torch.no_grad()
    def histogram(self) -> Tensor:
        """Images per bin of log10(w_i / mean w), the outer bins open. -> (BINS,) int64 on CPU."""
        counts = torch.zeros(BINS, dtype=torch.int64, device=self.theta.device)
        for block in self.blocks():
            at = (self.weights[block] / self.means[0]).log10_()
            at = ((at + DECADES) * (BINS / (2 * DECADES))).long().clamp_(0, BINS - 1)
            counts += torch.bincount(at, minlength=BINS)
        return counts.cpu()


def softplus(theta: Tensor) -> Tensor:
    """log(1 + exp theta) to the last digits, without torch's log1p, which on a CPU takes six times as long as its log.

    log(1 + y) of y = exp -|theta| is corrected for what 1 + y rounds away (Kahan); where that is all of y, it is y.
    """
    small = theta.abs().neg_().exp_()
    above = small + 1
    kept = above - 1
    log = above.log_().mul_(small).div_(kept)
    return torch.where(kept == 0, small, log).add_(theta.clamp_min(0))


def _sums(weights: Tensor) -> Tensor:
    """Sums of w and sqrt(w) of a block, float64 (2,)."""
    return torch.stack((weights.sum(), weights.sqrt().sum())).double()


class Resample(background.Background):
    """See the module's docstring."""

    def setup(self, network: nn.Module, sizes: Sizes) -> None:
        self.sizes = sizes
        self.images = ImageWeights(sizes.outliers, self.options.lr_weights, self.options.momentum_weights)
        self.register_buffer("counts", torch.zeros(sizes.epochs, BINS, dtype=torch.int64))
        self.register_buffer("broken", torch.zeros((), dtype=torch.int64))
        self.kept = [epoch for epoch in self.options.snapshots if epoch <= sizes.epochs]
        for epoch in self.kept:
            self.register_buffer(f"theta_{epoch}", torch.zeros(sizes.outliers))

    def start_epoch(self, network: nn.Module, epoch: int) -> None:
        super().start_epoch(network, epoch)
        generator = torch.Generator().manual_seed((self.sizes.seed * 1_000_003 + epoch) ^ 0x74686574)
        count = self.sizes.steps * self.sizes.outlier_batch
        self.order = self.images.draw(torch.rand(count, dtype=torch.float64, generator=generator))

    def weighted(self, distances: Tensor, batch: Batch) -> Tensor:
        self.distances = distances.detach()
        return self.images.factors(batch.outlier_index) * distances

    def after_step(self, network: nn.Module, batch: Batch) -> None:
        self.images.ascend(batch.outlier_index, self.distances, self.options.coefficient)
        step = batch.epoch * self.sizes.steps + batch.step + 1
        self.broken += step * ((self.broken == 0) & ~self.images.means.isfinite().all())
        if not self.broken.is_cuda:  # a GPU would have to wait: there it is read at the end of the epoch
            self._stop_if_broken()

    def _stop_if_broken(self) -> None:
        if self.broken:
            raise OODError(f"theta is not finite after step {int(self.broken)}; lower options.lr_weights (now "
                           f"{self.options.lr_weights:g}) or look at the background images")

    def end_epoch(self, network: nn.Module, epoch: int) -> None:
        self._stop_if_broken()
        self.counts[epoch] = self.images.histogram().to(self.counts.device)
        if epoch + 1 in self.kept:
            getattr(self, f"theta_{epoch + 1}").copy_(self.images.theta)

    def record(self) -> dict[str, Tensor]:
        """``theta`` (N,) float32; ``theta_{epoch}`` of the snapshots; ``histogram`` (epochs, bins) int64 of the weights
        over their mean, and its ``edges`` (bins + 1,), decades."""
        edges = torch.linspace(-DECADES, DECADES, BINS + 1)
        kept = {f"theta_{epoch}": getattr(self, f"theta_{epoch}") for epoch in self.kept}
        return {"theta": self.images.theta, **kept, "histogram": self.counts, "edges": edges}


def build(options: Options, released: tuple[str, ...]) -> Resample:
    return Resample(options)
