"""One network trained by several processes ("ranks"), each on its share of every batch: the step of one process.

All ranks hold the same network, method and images, draw the same batches and the same random numbers. A pass over
images is shared out: each rank takes its rows of the batch, and what the network gives for them is put together on all
ranks again, so that a method computes the loss of the whole batch, as if it were alone; its queues, prototypes and
weights of images are therefore the same on all ranks. The gradients of the ranks are summed. What depends on the other
images of a batch within the pass does so across the ranks:

* batch norm in training mode normalises by mean and variance of the whole batch;
* dropout takes its rows of the whole batch's mask.

Shares differ by one image at most; a pass over fewer images than ranks is made by each rank in full. Numbers differ
from those of one process by rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

PASSES = ("features", "dense")
"""What a network offers, beside being called, that is a pass over images."""


class Ranks:
    """The processes that train one network.

    Args:
        rank: this one's number.
        count: how many there are; 1: nothing is shared, and no method here does anything.
        control: a process group on CPU, for what the ranks agree on beside the computation.
    """

    def __init__(self, rank: int = 0, count: int = 1, control: distributed.ProcessGroup | None = None):
        self.rank, self.count, self.control = rank, count, control
        self.rows: int | None = None
        """Images of the pass that is being made, on all ranks together; ``None`` outside a shared pass."""
        self._weights: dict[tuple[int, torch.dtype, torch.device], Tensor] = {}

    def shares(self, rows: int) -> bool:
        """Whether a pass over so many images is shared out."""
        return 1 < self.count <= rows

    def sizes(self, rows: int) -> list[int]:
        """Images of each rank."""
        return [(rank + 1) * rows // self.count - rank * rows // self.count for rank in range(self.count)]

    def weights(self, rows: int, like: Tensor) -> Tensor:
        """Share of each rank in so many images, in the type and on the device of ``like``. -> (ranks, 1)."""
        key = rows, like.dtype, like.device
        if key not in self._weights:
            self._weights[key] = torch.tensor(self.sizes(rows), dtype=like.dtype, device=like.device)[:, None] / rows
        return self._weights[key]

    def share(self, rows: int) -> slice:
        """This rank's rows of a pass over so many images."""
        if not self.shares(rows):
            return slice(0, rows)
        return slice(self.rank * rows // self.count, (self.rank + 1) * rows // self.count)

    @contextmanager
    def passing(self, rows: int):
        """A shared pass over so many images."""
        self.rows = rows
        try:
            yield
        finally:
            self.rows = None

    def gather(self, part: Tensor, rows: int) -> Tensor:
        """The rows of all ranks from this rank's share of them. (own, ...) -> (rows, ...); differentiable."""
        return _Gather.apply(part, self, rows) if self.shares(rows) else part

    def gathered(self, part: Tensor, rows: int) -> Tensor:
        """As :meth:`gather`, without a gradient."""
        sizes = self.sizes(rows)
        most = max(sizes)
        padded = part.new_zeros(most, *part.shape[1:])
        padded[:len(part)] = part
        whole = part.new_empty(self.count * most, *part.shape[1:])
        distributed.all_gather_into_tensor(whole, padded)
        if min(sizes) == most:
            return whole
        return torch.cat([block[:size] for block, size in zip(whole.split(most), sizes, strict=True)])

    def backward(self, loss: Tensor, parameters: Iterable[nn.Parameter]) -> None:
        """Gradients of a loss that every rank has computed from the whole batch; the same on all ranks.

        Each rank's share of a gradient is 1 / count of what it computed outside a shared pass, as all of them did, and
        all of what went through its rows of one.
        """
        if self.count == 1:
            loss.backward()
            return
        (loss / self.count).backward()
        grads = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([grad.flatten() for grad in grads])
        distributed.all_reduce(flat)
        for grad, summed in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
            grad.copy_(summed.view(grad.shape))

    @torch.no_grad()
    def same(self, tensors: Iterable[Tensor]) -> None:
        """Give all ranks the first one's tensors, in place.

        They are equal but for the last bits of sums that a GPU makes in no fixed order, which must not add up.
        """
        if self.count > 1:
            for tensor in tensors:
                own = tensor.to(torch.uint8) if tensor.dtype == torch.bool else tensor.contiguous()
                distributed.broadcast(own, 0)
                tensor.copy_(own)

    def largest(self, *values: int) -> tuple[int, ...]:
        """The largest that any rank has of each value."""
        if self.count == 1:
            return values
        found = torch.tensor(values)
        distributed.all_reduce(found, distributed.ReduceOp.MAX, group=self.control)
        return tuple(found.tolist())

    def wait(self) -> None:
        """Go on when all ranks are here."""
        self.largest(0)

    def leave(self) -> None:
        """Call once at the end, when all is written."""
        if self.count > 1:
            self.wait()
            distributed.destroy_process_group()


ALONE = Ranks()


def join(meeting: str, rank: int, count: int, device: torch.device) -> Ranks:
    """This process as one of ``count`` that meet through a file: over NCCL on GPUs, gloo on CPU."""
    if count == 1:
        return ALONE
    distributed.init_process_group("gloo" if device.type == "cpu" else "nccl", init_method=f"file://{meeting}",
                                   rank=rank, world_size=count, timeout=timedelta(hours=1))
    control = distributed.group.WORLD if device.type == "cpu" else distributed.new_group(backend="gloo")
    return Ranks(rank, count, control)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor, ranks: Ranks, rows: int) -> Tensor:
        ctx.ranks, ctx.rows = ranks, rows
        return ranks.gathered(part.contiguous(), rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        # every rank has the same gradient of loss / count; those of this rank's rows are not summed by anyone else
        return grad[ctx.ranks.share(ctx.rows)] * ctx.ranks.count, None, None


class _Normalise(torch.autograd.Function):
    """Batch norm by the statistics of all ranks; also gives mean and (biased) variance."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, ranks: Ranks,
                ) -> tuple[Tensor, Tensor, Tensor]:
        dims = [0, *range(2, x.ndim)]
        share = ranks.weights(ranks.rows, x)
        own = torch.stack(torch.var_mean(x, dims, correction=0))
        spread, centres = ranks.gathered(own[None], ranks.count).unbind(1)  # (ranks, C) each
        mean = (share * centres).sum(0)
        variance = (share * (spread + (centres - mean).square())).sum(0)
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.eps, ctx.dims, ctx.count = eps, dims, ranks.rows * x[0, 0].numel()
        ctx.mark_non_differentiable(mean, variance)
        return functional.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, weight, mean, variance = ctx.saved_tensors
        unit = functional.batch_norm(x, mean, variance, None, None, False, 0.0, ctx.eps)
        own = torch.stack((grad.sum(ctx.dims), (grad * unit).sum(ctx.dims)))
        summed = own.clone()
        distributed.all_reduce(summed)
        shape = (1, -1) + (1,) * (x.ndim - 2)
        slope = (variance + ctx.eps).rsqrt() * (1 if weight is None else weight)
        offset, turn = (summed / ctx.count).view(2, *shape)
        to_x = (grad - offset - unit * turn).mul_(slope.view(shape))
        return (to_x, *((None, None) if weight is None else (own[1], own[0])), None, None)


def _batch_norm(module: nn.modules.batchnorm._BatchNorm, ranks: Ranks, alone: Callable[[Tensor], Tensor],
                x: Tensor) -> Tensor:
    if not module.training or ranks.rows is None:
        return alone(x)
    exact = x.float() if x.dtype == torch.bfloat16 else x  # statistics have all their digits, as on one GPU
    out, mean, variance = _Normalise.apply(exact, module.weight, module.bias, module.eps, ranks)
    with torch.no_grad():
        count = ranks.rows * x[0, 0].numel()
        module.num_batches_tracked.add_(1)
        module.running_mean.lerp_(mean, module.momentum)
        module.running_var.lerp_(variance * (count / max(1, count - 1)), module.momentum)
    return out.to(x.dtype)


def _dropout(module: nn.Dropout, ranks: Ranks, alone: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    if not module.training or ranks.rows is None:
        return alone(x)
    layout = torch.channels_last if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) else \
        torch.contiguous_format
    mask = torch.empty(ranks.rows, *x.shape[1:], dtype=x.dtype, device=x.device, memory_format=layout).fill_(1)
    return x * functional.dropout(mask, module.p)[ranks.share(ranks.rows)]


class Shared:
    """A network whose passes over images are shared out; all else is the network's own.

    Args:
        network: the same on all ranks; its batch norms and dropouts are made to work across them.
    """

    def __init__(self, network: nn.Module, ranks: Ranks):
        self._network, self._ranks = network, ranks
        for module in network.modules():
            own = (_batch_norm if isinstance(module, nn.modules.batchnorm._BatchNorm) else
                   _dropout if isinstance(module, nn.Dropout) else None)
            if own:
                module.forward = partial(own, module, ranks, module.forward)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._network, name)
        return partial(self._pass, found) if name in PASSES else found

    def __call__(self, x: Tensor) -> Tensor:
        return self._pass(self._network, x)

    def _pass(self, what: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        if not self._ranks.shares(len(x)):
            return what(x)
        with self._ranks.passing(len(x)):
            out = what(x[self._ranks.share(len(x))])
        return self._ranks.gather(out, len(x))


def shared(network: nn.Module, ranks: Ranks) -> nn.Module | Shared:
    """The network as these ranks train it."""
    return network if ranks.count == 1 else Shared(network, ranks)
