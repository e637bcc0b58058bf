"""Networks from the section of the configuration that names them."""

from __future__ import annotations

from typing import Any

from torch import nn

from workflow_scripts import plugins


def build(section: dict[str, Any], classes: int) -> nn.Module:
    """The network that ``{"name", "model", "options"}`` describes, with fresh weights and K = ``classes`` outputs."""
    options = plugins.parse_options("models", section["model"], section["options"], f"network '{section['name']}'")
    return plugins.load("models", section["model"]).build(options, classes)
