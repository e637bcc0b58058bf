"""Checkpoints: weights plus what they are for, in one file that holds only tensors and plain values."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.files import atomic
from workflow_scripts.core.mistaken import other_file


def save(path: str | Path, network: nn.Module, about: dict[str, Any]) -> None:
    """Write weights and ``about`` (plain values: network, classes, seed, history); same input, same bytes.

    ``about`` goes through JSON, since a pickle tells equal strings from one string that is there twice: those of a
    continued training's first epochs come from its progress file.
    """
    about = json.loads(json.dumps(about))
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    with atomic(path) as partial, open(partial, "wb") as file:
        torch.save({"state_dict": state, "about": about}, file)


def read(path: str | Path) -> dict[str, Any]:
    """The checkpoint's ``state_dict`` and ``about``, on CPU. Nothing but tensors and plain values is unpickled.

    Raises:
        OODError: the file is missing, cut off or no checkpoint of this workflow.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise OODError(f"checkpoint {path} does not exist; train it first") from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError, pickle.UnpicklingError):
        reason = other_file(path) or "it is damaged, or holds other things than tensors and plain values"
        raise OODError(f"checkpoint {path} cannot be read ({reason}); delete it and run again") from None
    if not isinstance(content, dict) or {"state_dict", "about"} - content.keys():
        raise OODError(f"checkpoint {path} is not one of this workflow: expected the keys state_dict and about")
    return content


def load_weights(network: nn.Module, state: dict[str, torch.Tensor], path: str | Path, expected: str) -> None:
    """Load weights strictly.

    Raises:
        OODError: names or shapes differ, that is, the checkpoint is of another network or class count.
    """
    own = network.state_dict()
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = [f"{k} is {tuple(state[k].shape)}, expected {tuple(own[k].shape)}"
              for k in own.keys() & state.keys() if own[k].shape != state[k].shape]
    if missing or extra or shapes:
        parts = ([f"{len(missing)} tensors are missing (first: {missing[0]})"] if missing else []) + \
                ([f"{len(extra)} do not belong (first: {extra[0]})"] if extra else []) + sorted(shapes)[:3]
        raise OODError(f"checkpoint {path} is not of network '{expected}': {'; '.join(parts)}")
    network.load_state_dict(state)
