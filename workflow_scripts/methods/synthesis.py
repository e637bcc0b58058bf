"""Outlier synthesis of NPOS (Tao et al., ICLR 2023): queues of features, their boundary, and rejection sampling.

Each class has a ring of its N newest features z. In a step, for each class:

1. the distance of each queued feature to its K-th neighbour in the queue (itself included), and of those the ``select``
   largest: the boundary;
2. ``pick`` of the boundary at random, and around each of them ``sample_from`` candidates z_b + sigma g_l, whose noise
   block g is shared by all classes and all boundary features of the step;
3. of the candidates around each, the ``keep`` with the largest K-th distance to the queue.

Distances are squared Euclidean distances of unit vectors, 2 - 2 cos; what is kept is not normalised. All of it is
batched over blocks of classes whose products take at most ``BLOCK_MB``. Two things save work: a candidate's products
with the queue are those of its centre plus those of its noise, (z_b + sigma g_l) . Z = z_b . Z + sigma g_l . Z; and
between steps only the pushed rows of a queue's own products change.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

BLOCK_MB = 64  # products of candidates and queue in memory at once
KEPT_MB = 1024  # products of queues with themselves that are kept between steps; larger ones are computed anew
FAR = torch.finfo(torch.float32).max  # distance of what has fewer than K neighbours


def kth_largest(x: Tensor, k: int) -> Tensor:
    """The k-th largest value of each row, 1-based; may reorder ``x``. (..., M) -> (...).

    On the CPU by numpy's partition, several times as fast as ``torch.kthvalue``.
    """
    place = x.shape[-1] - k
    if x.is_cuda:
        return x.kthvalue(place + 1, dim=-1).values
    rows = x.reshape(-1, x.shape[-1])
    parts = np.array_split(rows.numpy(), max(1, min(torch.get_num_threads(), len(rows))))

    def work(part: np.ndarray) -> np.ndarray:
        part.partition(place, axis=-1)
        return part[:, place].copy()

    if len(parts) == 1 or rows.numel() < 1 << 18:
        found = [work(part) for part in parts]
    else:
        with ThreadPoolExecutor(len(parts)) as pool:
            found = list(pool.map(work, parts))
    return torch.from_numpy(np.concatenate(found)).view(x.shape[:-1])


def ranks(labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """How many items of the same label come before each item, and the items of each class. (B,) -> (B,), (classes,)."""
    counts = torch.bincount(labels, minlength=classes)
    order = labels.argsort(stable=True)
    first = counts.cumsum(0) - counts
    place = torch.arange(len(labels), device=labels.device)
    return torch.empty_like(place).scatter_(0, order, place - first[labels[order]]), counts


class Queues(nn.Module):
    """The newest ``length`` features of each class, on the device, as directions and norms.

    Buffers: ``unit`` (C, N, D) and ``norm`` (C, N), zero where nothing was pushed; ``pushed`` (C,) int64, how many
    features ever came; ``changed`` (C, N) bool, rows whose ``products`` (C, N, N), of each queue with itself, are old.
    The products are not kept where nobody asks for them or they are too large.
    """

    def __init__(self, classes: int, length: int, width: int, products: bool = True):
        super().__init__()
        self.length = length
        self.register_buffer("unit", torch.zeros(classes, length, width))
        self.register_buffer("norm", torch.zeros(classes, length))
        self.register_buffer("pushed", torch.zeros(classes, dtype=torch.int64))
        self.register_buffer("changed", torch.ones(classes, length, dtype=torch.bool))
        kept = products and 4 * classes * length**2 <= KEPT_MB << 20
        self.register_buffer("products", torch.zeros(classes, length, length) if kept else None)
        self.counted = (torch.zeros(classes, dtype=torch.int64, device="cpu"),
                        torch.full((classes,), length, dtype=torch.int64, device="cpu"))
        """``pushed`` and the number of ``changed`` rows of each queue on the CPU, int64 (C,) each: a GPU that is asked
        in a step makes the processor wait."""
        self.register_load_state_dict_post_hook(lambda queues, keys: queues.count())

    def count(self) -> None:
        """Bring :attr:`counted` up to date with the buffers."""
        self.counted = self.pushed.to("cpu", copy=True), self.changed.sum(1).cpu()

    @torch.no_grad()
    def push(self, features: Tensor, labels: Tensor) -> None:
        """Put features into their classes' queues in order; the oldest leave.

        Args:
            features: (B, D).
            labels: (B,) int64, best on the CPU, where places in the queues are worked out.
        """
        device, (pushed, changed) = features.device, self.counted
        labels = labels.cpu()
        rank, counts = ranks(labels, len(pushed))
        stays = (rank >= counts[labels] - self.length).nonzero()[:, 0]  # of more than a queue holds, the last
        label = labels[stays]
        slot = (pushed[label] + rank[stays]) % self.length
        if len(stays) < len(features):
            features = features[stays.to(device, non_blocking=True)]
        new = features.detach().to(self.unit.dtype)
        norm = torch.linalg.vector_norm(new, dim=1)
        label, slot = (x.to(device, non_blocking=True) for x in (label, slot))
        self.unit[label, slot] = new / norm.clamp_min(torch.finfo(new.dtype).tiny)[:, None]
        self.norm[label, slot] = norm
        self.changed[label, slot] = True
        self.pushed += counts.to(device, non_blocking=True)
        self.counted = pushed + counts, (changed + counts).clamp_max(self.length)

    @torch.no_grad()
    def reset(self) -> None:
        """Forget the features but not that they came: the released queue at each epoch (npos.B1)."""
        for buffer in (self.unit, self.norm):
            buffer.zero_()
        self.changed.fill_(True)
        self.count()

    def full(self) -> bool:
        """Whether every class has got as many features as its queue holds."""
        return bool((self.counted[0] >= self.length).all())

    @torch.no_grad()
    def refresh(self) -> None:
        """Bring the kept products up to date: the rows and columns of what was pushed since."""
        if self.products is None:
            return
        pushed, changed = self.counted
        most = int(changed.max())
        if 4 * most > self.length:
            torch.bmm(self.unit, self.unit.transpose(1, 2), out=self.products)
        elif most:
            # classes with fewer changes repeat rows that did not change
            slots = self.changed.to(torch.uint8).topk(most, dim=1).indices  # (C, r)
            which = torch.arange(len(slots), device=slots.device)[:, None]
            new = self.unit[which, slots] @ self.unit.transpose(1, 2)  # (C, r, N)
            self.products[which, slots] = new
            self.products.transpose(1, 2)[which, slots] = new
        self.changed.fill_(False)
        self.counted = pushed, torch.zeros_like(changed)

    def block(self, classes: slice) -> Tensor:
        """Products of queued directions with each other. -> (c, N, N); may be a view of what is kept."""
        if self.products is not None:
            return self.products[classes]
        unit = self.unit[classes]
        return unit @ unit.transpose(1, 2)


@dataclass(frozen=True)
class Found:
    """What a step's synthesis gives.

    ``outliers`` (C, P, m, D); ``centres`` (C, P) int64, their boundary features' rows in the queue; ``candidates``
    (C, P, m) int64, numbers of the noise vectors, and of the boundary feature ``owners`` (C, P, m) they belong to
    (that of the same place unless npos.B2); ``distances`` (C, P, m) to the K-th neighbour; ``queued`` (C, N), those of
    the queue's rows.
    """

    outliers: Tensor
    centres: Tensor
    candidates: Tensor
    owners: Tensor
    distances: Tensor
    queued: Tensor


@dataclass(frozen=True)
class Synthesis:
    """The rule: sizes by the names of :class:`workflow_scripts.methods.npos.Options`, and the defects to reproduce.

    ``zeros_win`` (npos.B1): a zero row of a queue is the farthest of all, as a NaN is in the release, where it is left
    out otherwise. ``misplaced`` (npos.B2): the (P, L) distances are read as (L, P), the ``keep`` largest of each
    column are taken, and a place (l, p) is used as candidate number p L + l.
    """

    K: int
    select: int
    pick: int
    sample_from: int
    keep: int
    sigma: float
    zeros_win: bool = False
    misplaced: bool = False

    def draw(self, queues: Queues, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The step's random numbers: noise (L, D), and for each class a random order of its boundary, its first P.

        -> (L, D), (C, P) int64, on the queues' device; drawn on the CPU.
        """
        classes, _, width = queues.unit.shape
        noise = torch.randn(self.sample_from, width, generator=generator)
        places = torch.rand(classes, self.select, generator=generator).argsort(1)[:, :self.pick]
        return noise.to(queues.unit, non_blocking=True), places.to(queues.unit.device, non_blocking=True)

    @torch.no_grad()
    def __call__(self, queues: Queues, noise: Tensor, places: Tensor) -> Found:
        """Synthesise around the boundary features of these ``places`` (C, P) in the boundary, 0 the farthest.

        ``noise`` is (L, D)."""
        queues.refresh()
        classes, length, _ = queues.unit.shape
        size = max(1, (BLOCK_MB << 20) // (4 * length * max(length, self.pick * self.sample_from)))
        parts = [self._block(queues, slice(at, min(at + size, classes)), noise, places[at:at + size])
                 for at in range(0, classes, size)]
        return Found(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def boundary(self, products: Tensor, norm: Tensor) -> tuple[Tensor, Tensor]:
        """K-th distances of a block's rows and the boundary, farthest first. (c, N, N), (c, N) -> (c, N), (c, S)."""
        empty = norm == 0
        products = products.masked_fill(empty[:, None], -torch.inf)  # a copy, which is reordered
        distances = squared(kth_largest(products, self.K))
        distances = distances.masked_fill(empty, torch.inf if self.zeros_win else -torch.inf)
        return distances, distances.topk(self.select, dim=1).indices

    def _block(self, queues: Queues, classes: slice, noise: Tensor, places: Tensor) -> tuple[Tensor, ...]:
        unit, norm, own = queues.unit[classes], queues.norm[classes], queues.block(classes)
        queued, edge = self.boundary(own, norm)
        centres = edge.gather(1, places)  # (c, P)
        which = torch.arange(len(centres), device=centres.device)[:, None]
        size = norm[which, centres]  # (c, P)
        shift = self.sigma * (noise @ unit.transpose(1, 2))  # (c, L, N)
        along = size[:, :, None] * shift.transpose(1, 2)[which, centres]  # (c, P, L): z_b . sigma g_l
        length = (size[:, :, None].square() + 2 * along + self.sigma**2 * noise.square().sum(1)).sqrt()
        products = (size[:, :, None] * own[which, centres])[:, :, None] + shift[:, None]  # (c, P, L, N)
        empty = norm == 0
        if products.is_cuda or bool(empty.any()):
            products.masked_fill_(empty[:, None, None], -torch.inf)
        distances = squared(kth_largest(products, self.K) / length.clamp_min(torch.finfo(length.dtype).tiny))
        owners, candidates = self.choose(distances)
        rows = centres.gather(1, owners.flatten(1)).view_as(owners)
        every = which[:, :, None]
        outliers = unit[every, rows] * norm[every, rows][..., None] + self.sigma * noise[candidates]
        return outliers, centres, candidates, owners, distances[every, owners, candidates], queued

    def choose(self, distances: Tensor) -> tuple[Tensor, Tensor]:
        """Which candidates stay: their boundary features' places and noise numbers. (c, P, L) -> two of (c, P, m)."""
        count, picked, samples = distances.shape
        if not self.misplaced:
            best = distances.topk(self.keep, dim=2).indices
            return torch.arange(picked, device=best.device)[:, None].expand_as(best), best
        best = distances.reshape(count, samples, picked).topk(self.keep, dim=1).indices  # (c, m, P)
        flat = (torch.arange(picked, device=best.device) * samples + best).transpose(1, 2)
        return flat // samples, flat % samples


def squared(cosine: Tensor) -> Tensor:
    """Squared distance of unit vectors; without enough neighbours (-inf) it is :data:`FAR`."""
    return (2 - 2 * cosine).clamp(0, FAR)
