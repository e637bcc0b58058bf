"""How much of what a device can do a step uses: operations and bytes of each operator, against measured peaks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


@dataclass(frozen=True)
class Peaks:
    """What a device was seen to do: float32 operations per second, and bytes per second of its memory."""

    operations: float
    bandwidth: float


class Counted(TorchDispatchMode):
    """Operations (a multiplication and an addition are two) and the bytes that each operator reads and writes.

    Operators that only look at a tensor in another way move nothing. ``least`` is the time that the device would need
    if each operator ran at the better of its peaks' limits: eager execution without anything joined.
    """

    def __init__(self, peaks: Peaks):
        super().__init__()
        self.peaks, self.operations, self.bytes, self.least = peaks, 0, 0, 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.is_view:
            return out
        moved = sum(t.numel() * t.element_size() for t in tree_leaves((args, kwargs, out)) if isinstance(t, Tensor))
        count = flop_registry.get(func._overloadpacket)
        operations = count(*args, **(kwargs or {}), out_val=out) if count else 0
        self.operations, self.bytes = self.operations + operations, self.bytes + moved
        self.least += max(operations / self.peaks.operations, moved / self.peaks.bandwidth)
        return out


def best(work: Callable[[], object], device: torch.device, repeats: int = 5) -> float:
    """Least seconds of ``work``."""
    seconds = []
    for _ in range(repeats + 1):
        synchronise(device)
        started = time.perf_counter()
        work()
        synchronise(device)
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def peaks(device: torch.device, small: bool = False) -> Peaks:
    """Measured: a product of two square float32 matrices, and a copy, in the precision class that is switched on."""
    side, length = (256, 2**20) if small else (8192, 2**28) if device.type == "cuda" else (2048, 2**26)
    a, source = torch.rand(side, side, device=device), torch.rand(length, device=device)
    target = torch.empty_like(source)
    return Peaks(2 * side**3 / best(lambda: a @ a, device), 8 * length / best(lambda: target.copy_(source), device))
