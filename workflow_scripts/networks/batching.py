"""How many images a forward pass takes: as configured, a good fixed number, or by a short measurement."""

from __future__ import annotations

import statistics
import time

import torch
from torch import Tensor, nn

FIXED = {"cpu": 32, "cuda": 256}
"""Activations of 32 small images stay in a CPU's cache; a GPU wants more at once."""
TRIED = {"cpu": (16, 32, 64, 128), "cuda": (64, 128, 256, 512, 1024)}
TURNS, SECONDS = 3, 10.0


def batch_size(asked: int | str | None, network: nn.Module, example: Tensor) -> int:
    """Images of a forward pass of ``network``.

    Args:
        asked: a number; ``None`` for the fixed number of the device; ``auto`` for the fastest size of :data:`TRIED`,
            which is printed with what was measured.
        example: (1, 3, H, W) a network input on its device.
    """
    kind = example.device.type
    if isinstance(asked, int):
        return asked
    if asked is None:
        return FIXED[kind]
    speeds = measured(network, example, TRIED[kind])
    chosen = max(speeds, key=speeds.get)
    print(f"batch size {chosen} (images/s: {', '.join(f'{size}: {speed:.0f}' for size, speed in speeds.items())})",
          flush=True)
    return chosen


@torch.inference_mode()
def measured(network: nn.Module, example: Tensor, sizes: tuple[int, ...]) -> dict[int, float]:
    """Images/s of each size, medians of at most :data:`TURNS` turns in about :data:`SECONDS`, after one to warm up.

    A size that does not fit into a GPU's memory is left out, and so are the larger ones.
    """
    seconds: dict[int, list[float]] = {size: [] for size in sizes}
    started = time.perf_counter()
    for turn in range(1 + TURNS):
        for size in list(seconds):
            x = example.expand(size, -1, -1, -1).contiguous(memory_format=torch.channels_last)
            before = time.perf_counter()
            try:
                network.features(x)
                if x.is_cuda:
                    torch.cuda.synchronize()
            except torch.cuda.OutOfMemoryError:
                seconds = {smaller: times for smaller, times in seconds.items() if smaller < size}
                torch.cuda.empty_cache()
                break
            if turn:
                seconds[size].append(time.perf_counter() - before)
        if turn and time.perf_counter() - started > SECONDS:
            break
    return {size: size / statistics.median(times) for size, times in seconds.items() if times}
