"""Weights that were not trained here: released or foreign files -> a state dict in our tensor names.

A file may hold the tensors themselves, below a key (``state_dict``), or in a pickled network; names may carry a prefix
and be other names than ours. ``module.`` and ``_orig_mod.``, which ``DataParallel`` and ``torch.compile`` put before
the names of what they wrap, whole networks or parts of them, are left out of every name. Everything else is strict:
what is said about the layout must be so, and nothing is skipped but what is named. Nothing of a file is run
(:mod:`workflow_scripts.networks.inert`).
"""

from __future__ import annotations

import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Container, Iterable, Sequence
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
from workflow_scripts.core.mistaken import other_file
from workflow_scripts.data.class_names import same_classes
from workflow_scripts.networks import checkpoint, inert
from workflow_scripts.networks.architecture import Network

WRAPPERS = ("module", "_orig_mod")
ALIASES = ((r"\bshortcut\b", "downsample"), (r"\bdownsample\b", "shortcut"), (r"\bnorm\.(\d)", r"norm\1"),
           (r"\bconv\.(\d)", r"conv\1"), (r"^linear\b", "fc"), (r"^classifier\b", "fc"), (r"^fc\b", "linear"))
"""Words of tensor names (patterns) -> other words for the same part, as published networks differ in them."""


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
         rename: dict[str, str] | None = None, drop: Sequence[str] = (), known: Iterable[str] = (),
         ) -> dict[str, Tensor]:
    """The file's tensors, on CPU, in file order. Only tensors and plain values are unpickled.

    Args:
        path: a file that ``torch.save`` wrote, in its zip or its older form, ``.npz`` or ``.safetensors``.
        key: the entry that holds the tensors; empty: the file is that mapping, or a single entry of it holds tensors.
        strip_prefix: taken off every name, e.g. ``net.``.
        known: names of the network's tensors. A network that has a part called ``module`` keeps it; a prefix that all
            names have and none of the network's is left out last.
        drop: prefixes, after that, of tensors that are left out.
        rename: prefix -> prefix, applied after that; the longest that fits a name wins. A whole name is a prefix too.

    Raises:
        OODError: the file is missing, not readable, or not laid out as said.
    """
    return tensors(content(path), path, key, strip_prefix, rename, drop, known)


def content(path: str | Path) -> Any:
    """What a file holds: see :func:`read`, which takes the tensors out of it."""
    _there(path)
    return arrays(path) if Path(path).suffix == ".npz" else unpickled(path)


def tensors(content: Any, path: str | Path, key: str = "", strip_prefix: str = "",
            rename: dict[str, str] | None = None, drop: Sequence[str] = (), known: Iterable[str] = (),
            ) -> dict[str, Tensor]:
    """As :func:`read`, of :func:`content`."""
    state = entry(content, key, path)
    state = {stripped(name, strip_prefix, path): tensor for name, tensor in state.items()}
    known = set(known)
    state = unwrapped(state, {part for name in known for part in name.split(".")}, path)
    for prefix in drop:
        if not any(name.startswith(prefix) for name in state):
            raise OODError(f"{path}: no tensor begins with '{prefix}'{nearest(prefix, state)}; correct drop")
    state = renamed({name: tensor for name, tensor in state.items() if not name.startswith(tuple(drop))}, rename or {},
                    path)
    state = aliased(unprefixed(state, known, path), known, path)
    for name, tensor in state.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta or tensor.is_complex():
            kind = ("quantised" if tensor.is_quantized else "meta" if tensor.is_meta else
                    "complex" if tensor.is_complex() else str(tensor.layout).removeprefix("torch."))
            raise OODError(f"{path}: tensor '{name}' is {kind}; expected plain numbers: convert it before you save it")
        if tensor.is_floating_point() and not tensor.float().isfinite().all():
            raise OODError(f"{path}: tensor '{name}' has NaN or infinite values in single precision; the weights are "
                           "of no use")
    return state


def stated_classes(content: Any) -> tuple[str, ...]:
    """Names of the classes in the order of the outputs, where a trainer's file says them; else none.

    They are looked for as ``class_to_idx`` (torchvision's), ``classes`` and ``class_names``, at the top or in an entry
    such as ``about``, ``meta`` or ``args``.
    """
    inner = [content, *content.values()] if isinstance(content, dict) else []
    for mapping in (part for part in inner if isinstance(part, dict)):
        numbers = mapping.get("class_to_idx")
        if isinstance(numbers, dict) and sorted(map(str, numbers.values())) == sorted(map(str, range(len(numbers)))):
            return tuple(map(str, sorted(numbers, key=lambda name: int(numbers[name]))))
        for key in ("classes", "class_names"):
            names = mapping.get(key)
            if isinstance(names, list | tuple) and names and all(isinstance(name, str) for name in names):
                return tuple(names)
    return ()


def same_order(stated: Sequence[str], expected: Sequence[str], path: str | Path) -> None:
    """Refuse a checkpoint whose outputs are the ID set's classes in another order, or partly others.

    Args:
        stated: :func:`stated_classes`; none: nothing can be compared.
        expected: classes of the ID set. Where none of them is stated, they are called otherwise, which is printed.

    Raises:
        OODError: naming the classes.
    """
    if stated and not set(stated) & set(expected):
        print(f"{path}: it calls its classes otherwise ({', '.join(stated[:3])}, ...); its outputs are taken in the "
              f"order of the ID set's ({', '.join(expected[:3])}, ...)", flush=True)
    elif stated:
        same_classes(stated, expected, f"checkpoint {path}", "the ID set")


def unpickled(path: str | Path) -> Any:
    """What the file holds. Raises OODError when it is no ``torch.save`` file or holds more than tensors."""
    if str(path).endswith(".safetensors"):
        try:
            return load_file(path)
        except (SafetensorError, ValueError) as error:
            reason = other_file(path) or str(error)
            raise OODError(f"checkpoint {path} cannot be read ({reason}); expected a safetensors file") from None
    try:
        if bad := _damaged_member(path):
            raise OODError(f"checkpoint {path} is damaged: its part {bad} has another checksum than the file says; "
                           "fetch it again")
        with warnings.catch_warnings(action="ignore"):  # about forms that are then read below, or refused
            return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError, pickle.UnpicklingError):
        pass
    try:
        if reason := other_file(path):
            raise inert.Unreadable(reason)
        content, names = inert.read(path)
    except inert.Unreadable as error:
        raise OODError(f"checkpoint {path} cannot be read ({error}); expected a state dict that torch.save wrote, a "
                       ".safetensors or an .npz") from None
    others = [name for name in names if not name.startswith(("torch._", "torch.nn.", "collections.", "__builtin__."))
              and not name.endswith("Storage") and name != "torch.Size"]
    if others:
        print(f"{path}: only tensors and plain values are taken of it, by name; of {', '.join(others[:5])}"
              f"{', ...' if len(others) > 5 else ''} no code is run", flush=True)
    return content


def _damaged_member(path: str | Path) -> str | None:
    """Name of the first member of a zip file whose content has another checksum; PyTorch does not look."""
    if not zipfile.is_zipfile(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip()
    except (OSError, RuntimeError, NotImplementedError, zipfile.BadZipFile):
        return None  # told below


def arrays(path: str | Path) -> dict[str, Tensor]:
    """Arrays of an ``.npz``, nothing unpickled. Raises OODError when it is none or holds objects."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: torch.from_numpy(file[name]) for name in file.files}
    except (OSError, ValueError, TypeError, EOFError, KeyError, zipfile.BadZipFile) as error:
        reason = other_file(path) or (str(error).splitlines() or [type(error).__name__])[0]
        if "allow_pickle" in reason:
            reason = "it holds Python objects"
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
    """The mapping of names to tensors below ``key``. Raises OODError when there is none, or without a key several."""
    inner = [] if holds_tensors(content) else below(content)
    if not key and isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        key = "state_dict"  # a trainer's file, with the state of the training beside the network
        names = content[key].keys()
        if twins := [name for name in below(content) if name != key and content.get(name, {}).keys() == names]:
            raise OODError(f"{path}: it holds the same network below state_dict and {', '.join(twins)} (averaged "
                           "weights?); set `key` to the entry that is wanted")
    elif not key and inner:
        key, *others = inner
        if others:
            raise OODError(f"{path}: it holds tensors below {', '.join(inner)}; set `key` to the entry that is wanted")
        print(f"{path}: the tensors of its entry '{key}' are taken", flush=True)
    place = f"{path}, key '{key}'" if key else str(path)
    for part in [key] if not isinstance(content, dict) or key in content else key.split("."):
        if not part:
            break
        if not isinstance(content, dict) or part not in content:
            holds = ", ".join(map(str, list(content)[:8])) if isinstance(content, dict) else type(content).__name__
            hint = nearest(key, content) if isinstance(content, dict) else ""
            raise OODError(f"{path}: no key '{key}'{hint}; it holds {holds}; set `key` to the entry with the tensors, "
                           "or to an empty text")
        content = content[part]
    if not isinstance(content, dict) or not content:
        raise OODError(f"{place}: expected a mapping of names to tensors, found {_what(content)}")
    odd = next((name for name, value in content.items() if not isinstance(value, Tensor)), None)
    if odd is not None:
        inner = below(content)
        hint = f"; set `key`, perhaps to {' or '.join(inner)}" if inner else ""
        raise OODError(f"{place}: '{odd}' is no tensor but {_what(content[odd])}{hint}")
    return {name: tensor.detach() for name, tensor in content.items()}


def _what(value: Any) -> str:
    """An entry that is no tensor; of one that is made by code, the safe way."""
    if not isinstance(value, inert.Shell):
        return type(value).__name__
    return (f"what {value.path} makes, and no code of a file is run; where the file is trusted, save its tensors "
            "alone: torch.save(net.state_dict(), ...)")


def holds_tensors(value: Any) -> bool:
    """Whether it is a mapping of names to tensors and nothing else."""
    return isinstance(value, dict) and bool(value) and all(isinstance(part, Tensor) for part in value.values())


def below(content: Any) -> list[str]:
    """Keys of a mapping, at most two deep and joined by dots, below which there are tensors."""
    entries = {str(name): value for name, value in content.items()} if isinstance(content, dict) else {}
    deeper = {f"{name}.{key}": value for name, inner in entries.items() if isinstance(inner, dict)
              for key, value in inner.items()}
    return [name for name, value in (entries | deeper).items() if holds_tensors(value)]


def stripped(name: str, prefix: str, path: str | Path) -> str:
    """The name without the prefix, which it must have."""
    if not name.startswith(prefix):
        raise OODError(f"{path}: tensor '{name}' does not begin with '{prefix}'; correct strip_prefix")
    return name[len(prefix):]


def unwrapped(state: dict[str, Tensor], parts: Container[str], path: str | Path) -> dict[str, Tensor]:
    """Tensors without the :data:`WRAPPERS` in their names, but for those that are among ``parts``.

    Raises:
        OODError: two names clash.
    """
    left_out = [name for name in WRAPPERS if name not in parts]
    result: dict[str, Tensor] = {}
    for name, tensor in state.items():
        *before, last = name.split(".")
        new = ".".join([*(part for part in before if part not in left_out), last])
        if new in result:
            but = ".` or `".join(left_out)
            raise OODError(f"{path}: two tensors are called '{new}' but for `{but}.` (the second is '{name}'); the "
                           "file holds two networks, which is not supported")
        result[new] = tensor
    return result


def unprefixed(state: dict[str, Tensor], known: Container[str], path: str | Path) -> dict[str, Tensor]:
    """Tensors without a prefix that all their names have and none of the names ``known`` has."""
    prefix = os.path.commonprefix(list(state))
    prefix = prefix[:prefix.rfind(".") + 1]
    while prefix and not any(name in known for name in state):
        short = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
        if any(name in known for name in short):
            print(f"{path}: '{prefix}' is left out of the names of its tensors", flush=True)
            return short
        prefix = prefix[:prefix.rfind(".", 0, -1) + 1]
    return state


def aliased(state: dict[str, Tensor], known: Container[str], path: str | Path) -> dict[str, Tensor]:
    """Tensors by the network's names where these are other words for the same part (:data:`ALIASES`).

    A word is replaced only where that gives a name of the network, which the file does not have itself; loading stays
    strict.
    """
    said: dict[str, str] = {}
    result: dict[str, Tensor] = {}
    for name, tensor in state.items():
        new = name
        if name not in known:
            ways = ((re.sub(old, word, name), old, word) for old, word in ALIASES)
            new, old, word = next((way for way in ways if way[0] in known and way[0] not in state), (name, "", ""))
            said |= {old: word} if new != name else {}
        result[new] = tensor
    for old, word in said.items():
        print(f"{path}: in names of its tensors {old} is read as {word}", flush=True)
    return result if len(result) == len(state) else state


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
    whole = next((key for key, tensor in state.items()
                  if key in own and own[key].is_floating_point() and not tensor.is_floating_point()), None)
    if whole is not None:
        raise OODError(f"checkpoint {path}: tensor '{whole}' is of {str(state[whole].dtype).removeprefix('torch.')}, "
                       "expected floating-point weights; it is quantised or of another network")
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
