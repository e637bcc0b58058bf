"""A network whose passes with gradients are compiled by ``torch.compile``.

Passes without gradients (validation, a method's filter, the probe) stay as they are: each comes in sizes of its own,
and every size would be compiled anew. What cannot be compiled ends the training; nothing falls back to eager on the
quiet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from workflow_scripts.core.errors import OODError
from workflow_scripts.models.base import Classifier
from workflow_scripts.training.ranks import PASSES

How = Literal["no", "kernels", "graphs"]
_MODES = {"kernels": "default", "graphs": "reduce-overhead"}  # torch's names


def compiled(network: Classifier, how: How, device: torch.device, processes: int = 1,
             backend: str = "inductor") -> None:
    """Compile the passes of a network, in place, when they are first made.

    Args:
        how: ``no``: leave it; ``kernels``: with inductor; ``graphs``: and record them as CUDA graphs.
        device: where it is trained.
        processes: that share its batches.
        backend: ``torch.compile``'s; another one than inductor serves tests.

    Raises:
        OODError: ``graphs`` without a GPU; several processes. When a pass is made: it cannot be compiled.
    """
    if how == "no":
        return
    if processes > 1:
        raise OODError(f"compile: a network that {processes} GPUs or processes train together cannot be compiled (its "
                       "batch norms talk to each other); leave compile out, or set gpus: 1")
    if how == "graphs" and device.type != "cuda":
        raise OODError("compile: graphs are recorded on a GPU, and this training is on the CPU; set compile: kernels, "
                       "or leave it out")
    for name in (*PASSES, "forward"):
        if hasattr(network, name):
            network.__dict__[name] = _with_gradients(getattr(network, name), how, backend)


def _with_gradients(plain: Callable[[Tensor], Tensor], how: How, backend: str) -> Callable[[Tensor], Tensor]:
    from torch._dynamo.exc import TorchDynamoException  # a second of imports that few trainings need

    options = {"mode": _MODES[how]} if backend == "inductor" else {}
    fast = torch.compile(plain, backend=backend, fullgraph=True, dynamic=False, **options)

    def run(x: Tensor) -> Tensor:
        if not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return plain(x)
        if how == "graphs":
            torch.compiler.cudagraph_mark_step_begin()  # a method makes one such pass in a step
        try:
            return fast(x)
        except TorchDynamoException as error:
            reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
            raise OODError(f"compile: torch cannot compile this network ({type(error).__name__}: {reason}); leave "
                           "compile out") from error

    return run
