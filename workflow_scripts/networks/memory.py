"""Memory: whether there is room on a device, and, on a CPU, that freed blocks are kept for the next step."""

from __future__ import annotations

import ctypes

import torch

from workflow_scripts.core.errors import OODError

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of glibc's mallopt
_LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell glibc to reuse large freed blocks instead of giving them back to the system.

    The activations of each step are as large as those of the step before; fetched anew, every page of them is first
    zeroed by the kernel. Kept, a G-OE step of 640 images on the small ResNet takes 0.74 of the time and a step of 128
    images 0.98; the process grows from 1.53 to 1.71 GB at its peak (benchmarks/goe.py, one thread, n = 3).

    Returns:
        False where the C library has no such switch; nothing is changed there.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, _LARGEST))


def check_room(size: int, device: torch.device, what: str, instead: str) -> None:
    """Refuse what does not fit.

    Args:
        size: bytes that are needed.
        what, instead: of the message: what needs them, and what to do.

    Raises:
        OODError: less is free on the device.
    """
    if device.type == "cuda":
        free, place = torch.cuda.mem_get_info(device)[0], "on the GPU"
    else:
        import psutil  # the GPU's benchmarks do without it

        free, place = psutil.virtual_memory().available, "in memory"
    if size > free:
        raise OODError(f"{what} take {size / 1e9:.2f} GB, of which {free / 1e9:.2f} GB are free {place}; {instead}")
