"""Weights that were not trained here: released or foreign files -> a state dict in our tensor names.

A file may hold the tensors themselves or below a key (``state_dict``); names may carry a prefix and be other names than
ours. ``module.``, which ``DataParallel`` puts before the names of what it wraps, whole networks or parts of them, is
left out of every name. Everything else is strict: what is said about the layout must be so, and nothing is skipped but
what is named.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from workflow_scripts.core import plugins
from workflow_scripts.core.errors import OODError, nearest
from workflow_scripts.core.files import digests
from workflow_scripts.networks import checkpoint
from workflow_scripts.networks.architecture import Network


def check(path: str | Path, sha256: str | None, git_blob: str | None = None) -> None:
    """Refuse another file than the one expected.

    Args:
        path: the file.
        sha256: its hash in hexadecimal, or the first digits; ``None``: not compared.
        git_blob: the id that Git gives it; ``None``: not compared.

    Raises:
        OODError: the file is missing, or another.
    """
    expected = {kind: value.lower() for kind, value in (("sha256", sha256), ("git", git_blob)) if value is not None}
    _there(path)
    found = digests(path, expected) if expected else {}
    for kind, value in expected.items():
        if not found[kind].startswith(value):
            name = {"sha256": "sha256", "git": "git_blob"}[kind]
            raise OODError(f"{path}: {name} is {found[kind]}, expected {value}; it is another file or damaged: "
                           f"fetch it again, or correct {name}")


def _there(path: str | Path) -> None:
    if not Path(path).is_file():
        raise OODError(f"checkpoint {path} is not there; put the released file in that place")


def read(path: str | Path, key: str = "", strip_prefix: str = "",
         rename: dict[str, str] | None = None, drop: Sequence[str] = (), wrapped: bool = True) -> dict[str, Tensor]:
    """The file's tensors, on CPU, in file order. Only tensors and plain values are unpickled.

    Args:
        path: a file that ``torch.save`` wrote, in its zip or its older form, ``.npz`` or ``.safetensors``.
        key: the entry that holds the tensors; empty: the file is that mapping, or has it below ``state_dict``.
        strip_prefix: taken off every name, e.g. ``net.``.
        wrapped: leave each ``module.`` out of the names, after that; not for a network that has such a part.
        drop: prefixes, after that, of tensors that are left out.
        rename: prefix -> prefix, applied after that; the longest that fits a name wins. A whole name is a prefix too.

    Raises:
        OODError: the file is missing, not readable, or not laid out as said.
    """
    _there(path)
    state = entry(arrays(path) if Path(path).suffix == ".npz" else unpickled(path), key, path)
    state = {stripped(name, strip_prefix, path): tensor for name, tensor in state.items()}
    if wrapped:
        state = unwrapped(state, path)
    for prefix in drop:
        if not any(name.startswith(prefix) for name in state):
            raise OODError(f"{path}: no tensor begins with '{prefix}'{nearest(prefix, state)}; correct drop")
    state = renamed({name: tensor for name, tensor in state.items() if not name.startswith(tuple(drop))}, rename or {},
                    path)
    for name, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise OODError(f"{path}: tensor '{name}' has NaN or infinite values; the weights are of no use")
    return state


def unpickled(path: str | Path) -> Any:
    """What the file holds. Raises OODError when it is no ``torch.save`` file or holds more than tensors."""
    if str(path).endswith(".safetensors"):
        try:
            return load_file(path)
        except (SafetensorError, ValueError) as error:
            raise OODError(f"checkpoint {path} cannot be read ({error}); expected a safetensors file") from None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise OODError(f"checkpoint {path} cannot be read ({reason}); expected a torch.save file with nothing but "
                       "tensors and plain values") from None


def arrays(path: str | Path) -> dict[str, Tensor]:
    """Arrays of an ``.npz``, nothing unpickled. Raises OODError when it is none or holds objects."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: torch.from_numpy(file[name]) for name in file.files}
    except (OSError, ValueError, TypeError, EOFError, KeyError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise OODError(f"checkpoint {path} cannot be read ({reason}); expected an .npz file of arrays of numbers"
                       ) from None


def converted(state: dict[str, Tensor], section: Network, path: str | Path) -> dict[str, Tensor]:
    """Tensors in the names of the architecture of ``section``, where it knows other layouts than its own.

    Raises:
        OODError: arrays are missing or of another architecture.
    """
    module = plugins.load("models", section.model)
    if not hasattr(module, "convert"):
        return state
    return module.convert(state, section.options, path)


def entry(content: Any, key: str, path: str | Path) -> dict[str, Tensor]:
    """The mapping of names to tensors below ``key``. Raises OODError when there is none."""
    if not key and isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        key = "state_dict"  # a trainer's file, with the state of the training beside the network
    place = f"{path}, key '{key}'" if key else str(path)
    if key:
        if not isinstance(content, dict) or key not in content:
            holds = ", ".join(map(str, list(content)[:8])) if isinstance(content, dict) else type(content).__name__
            hint = nearest(key, content) if isinstance(content, dict) else ""
            raise OODError(f"{path}: no key '{key}'{hint}; it holds {holds}; set `key` to the entry with the tensors, "
                           "or to an empty text")
        content = content[key]
    if not isinstance(content, dict) or not content:
        raise OODError(f"{place}: expected a mapping of names to tensors, found {type(content).__name__}")
    odd = next((name for name, value in content.items() if not isinstance(value, Tensor)), None)
    if odd is not None:
        inner = [str(name) for name, value in content.items() if isinstance(value, dict)]
        hint = f"; set `key`, perhaps to {' or '.join(inner)}" if inner else ""
        raise OODError(f"{place}: '{odd}' is no tensor but {type(content[odd]).__name__}{hint}")
    return {name: tensor.detach() for name, tensor in content.items()}


def stripped(name: str, prefix: str, path: str | Path) -> str:
    """The name without the prefix, which it must have."""
    if not name.startswith(prefix):
        raise OODError(f"{path}: tensor '{name}' does not begin with '{prefix}'; correct strip_prefix")
    return name[len(prefix):]


def unwrapped(state: dict[str, Tensor], path: str | Path) -> dict[str, Tensor]:
    """Tensors without the ``module.`` in their names. Raises OODError for two names that clash."""
    result: dict[str, Tensor] = {}
    for name, tensor in state.items():
        *parts, last = name.split(".")
        new = ".".join([*(part for part in parts if part != "module"), last])
        if new in result:
            raise OODError(f"{path}: two tensors are called '{new}' but for `module.` (the second is '{name}'); the "
                           "file holds two networks, which is not supported")
        result[new] = tensor
    return result


def renamed(state: dict[str, Tensor], rename: dict[str, str], path: str | Path) -> dict[str, Tensor]:
    """Tensors with their prefixes replaced. Raises OODError for a rule that fits nothing, or two names that clash."""
    unused, result = set(rename), {}
    for name, tensor in state.items():
        old = max((prefix for prefix in rename if name.startswith(prefix)), key=len, default="")
        unused.discard(old)
        new = rename[old] + name[len(old):] if old else name
        if new in result:
            raise OODError(f"{path}: two tensors would be called '{new}' (the second is '{name}'); correct rename")
        result[new] = tensor
    if unused:
        prefix = min(unused)
        raise OODError(f"{path}: no tensor begins with '{prefix}'{nearest(prefix, state)}; correct rename")
    return result


def load(network: nn.Module, state: dict[str, Tensor], path: str | Path, name: str,
         fresh: Sequence[str] = ()) -> None:
    """Load foreign weights strictly into ``network``, whose tensors with a prefix in ``fresh`` stay as they are.

    Files older than PyTorch 0.4.1 (torchvision's first ResNets) have no ``num_batches_tracked``, a counter that eval
    mode does not read; where a file has none at all, they start at 0, as in PyTorch's own rule.

    Raises:
        OODError: other tensors, other shapes, another number of classes, or a prefix in ``fresh`` that fits nothing of
            the network or something in the file.
    """
    own = network.state_dict()
    for prefix in fresh:
        kept = {key: value for key, value in own.items() if key.startswith(prefix)}
        if not kept or kept.keys() & state.keys():
            problem = "the file has such tensors" if kept else f"network '{name}' has no such tensor"
            raise OODError(f"checkpoint {path}: fresh names '{prefix}', but {problem}; correct fresh")
        state = state | kept
    counters = [key for key in own if key.endswith("num_batches_tracked")]
    if not any(key in state for key in counters):
        state = state | {key: torch.zeros_like(own[key]) for key in counters}
    head = next(f"{key}.weight" for key, module in network.named_modules() if module is network.head)
    if head in state and own.keys() == state.keys():
        classes, wanted = len(state[head]), network.head.out_features
        if classes != wanted:
            raise OODError(f"checkpoint {path} of network '{name}' has {classes} classes, the ID set has {wanted}")
    checkpoint.load_weights(network, state, path, name)
