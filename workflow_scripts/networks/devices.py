"""Where a network runs, and how: device, threads, determinism."""

from __future__ import annotations

import argparse
import os

import torch

from workflow_scripts.core.errors import OODError

NAMES = ("auto", "cpu", "cuda")
TF32 = "on a GPU, compute convolutions and products of float32 numbers in TensorFloat-32"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``--device``, ``--tf32`` and ``--threads`` of a stage with a network."""
    parser.add_argument("--device", default="auto", choices=NAMES)
    parser.add_argument("--tf32", action="store_true", help=TF32)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: %(default)s)")


def check_bfloat16(device: torch.device, key: str) -> None:
    """Raises OODError, naming the key, on a GPU that does not compute in bfloat16; a CPU does."""
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise OODError(f"{key}: bfloat16 was asked for, but {torch.cuda.get_device_name(device)} does not compute in "
                       f"it (compute capability 8.0 and above do); set {key}: float32")


def pick(name: str, threads: int, tf32: bool = False) -> torch.device:
    """The device that one of :data:`NAMES` names; sets ``threads`` CPU threads and deterministic algorithms.

    On a GPU convolutions and products of float32 numbers are float32, with ``tf32`` TensorFloat-32.

    Raises:
        OODError: ``cuda`` was asked for and there is none.
    """
    torch.set_num_threads(threads)
    if name == "cuda" and not torch.cuda.is_available():
        raise OODError("device: cuda was asked for, but torch finds no GPU; set `device: auto` or `cpu`, "
                       f"or check the driver (torch {torch.__version__}, CUDA build {torch.version.cuda})")
    device = torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
    if device.type == "cuda" and torch.cuda.device_count() > 1:
        free = [torch.cuda.mem_get_info(i)[0] for i in range(torch.cuda.device_count())]
        torch.cuda.set_device(free.index(max(free)))
    if device.type == "cpu":
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # else each new tensor is first filled with NaN
    else:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
    return device
