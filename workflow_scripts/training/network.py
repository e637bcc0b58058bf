"""Networks from the section of the configuration that names them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from workflow_scripts import plugins
from workflow_scripts.training import checkpoint


def build(section: dict[str, Any], classes: int) -> nn.Module:
    """The network that ``{"name", "model", "options"}`` describes, with fresh weights and K = ``classes`` outputs."""
    options = plugins.parse_options("models", section["model"], section["options"], f"network '{section['name']}'")
    return plugins.load("models", section["model"]).build(options, classes)


def trained(section: dict[str, Any], path: str, where: torch.device) -> nn.Module:
    """The network of a checkpoint, in eval mode on ``where``, its weights frozen.

    Args:
        section: the network's ``name``, ``model`` and ``options``.

    Raises:
        OODError: the file is no checkpoint, or of another network.
    """
    content = checkpoint.read(path)
    network = build(section, len(content["about"]["classes"]))
    checkpoint.load_weights(network, content["state_dict"], path, section["name"])
    return network.to(where, memory_format=torch.channels_last).eval().requires_grad_(False)
