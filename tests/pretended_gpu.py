"""Tensors that say they are on a GPU and compute on the CPU, and refuse whatever would make the processor wait for one.

What waits, in torch: to read a number (``item``, ``float``, ``bool``, ``tolist``), to count (``nonzero``, a mask as an
index, ``unique``), to copy to the host, and to copy to the GPU without ``non_blocking``. The device is called ``meta``,
since torch looks for a driver when it hears ``cuda``; :attr:`Pretended.is_cuda` is true.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

GPU = torch.device("meta")
CPU = torch.device("cpu")
_refusing: ContextVar[bool] = ContextVar("_refusing", default=False)
COUNTING = {"_local_scalar_dense", "nonzero", "masked_select", "unique_dim", "_unique2", "unique_consecutive",
            "is_nonzero", "equal", "_linalg_check_errors"}


class Waits(AssertionError):
    """The processor would have to wait for the GPU."""


class Pretended(Tensor):
    """A tensor on the pretended GPU."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Pretended:
        made = Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device=GPU, layout=inner.layout)
        made.inner = inner
        return made

    @property
    def is_cuda(self) -> bool:
        return True

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"Pretended({self.inner!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


class _Here(TorchDispatchMode):
    """Tensors that are made on the pretended GPU are pretended."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


def _computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """What an operation gives, computed on the CPU. Raises Waits."""
    given: list[Pretended] = []
    devices: list[torch.device] = []

    def opened(tensor: Pretended) -> Tensor:
        given.append(tensor)
        return tensor.inner

    def elsewhere(device: torch.device) -> torch.device:
        devices.append(device)
        return CPU

    plain = tree_map_only(torch.device, elsewhere, tree_map_only(Pretended, opened, (args, kwargs)))
    name = func._schema.name.removeprefix("aten::")
    if any(isinstance(one, Tensor) and one.device == GPU for one in tree_leaves(plain)):
        raise Waits("torch.tensor on the GPU, which is a copy")
    if _refusing.get():
        _refuse(name, args, kwargs, bool(given), devices)
    found = func(*plain[0], **plain[1])
    if (not given and GPU not in devices) or (CPU in devices and given):
        return found
    same = {id(tensor.inner): tensor for tensor in given}
    return tree_map_only(Tensor, lambda one: same[id(one)] if id(one) in same else Pretended(one), found)


def _refuse(name: str, args: Any, kwargs: dict[str, Any], given: bool, devices: list[torch.device]) -> None:
    """Raises Waits where the operation does.

    Args:
        given: whether an argument is pretended.
        devices: the devices among the arguments.
    """
    if given and name in COUNTING:
        raise Waits(name)
    if given and CPU in devices:
        raise Waits(f"{name} to the host")
    if given and name in ("index", "index_put", "index_put_", "_index_put_impl_") and any(
            index is not None and index.dtype == torch.bool for index in args[1]):
        raise Waits(f"{name} by a mask")
    if name not in ("_to_copy", "copy_"):
        return
    source = args[0] if name == "_to_copy" else args[1]
    to_gpu = GPU in devices if name == "_to_copy" else isinstance(args[0], Pretended)
    if name == "copy_" and isinstance(source, Pretended) and not to_gpu:
        raise Waits("copy_ to the host")
    if to_gpu and not isinstance(source, Pretended) and not kwargs.get("non_blocking", len(args) > 2 and args[2]):
        raise Waits(f"{name} to the GPU without non_blocking")


@contextmanager
def pretending() -> Iterator[None]:
    """Within it the device ``GPU`` is there."""
    with _Here():
        yield


@contextmanager
def without_waiting() -> Iterator[None]:
    """Within it what waits for the GPU raises Waits."""
    token = _refusing.set(True)
    try:
        yield
    finally:
        _refusing.reset(token)


def moved(module: nn.Module) -> nn.Module:
    """The module on the pretended GPU, in place."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = nn.Parameter(Pretended(parameter.detach()), parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = Pretended(buffer)
    return module
