"""What `pip install .` installs: the folder ``ood_reproduction``, laid out as a checkout, and a ``.pth`` file beside it
that puts this folder on Python's path, so that ``workflow_scripts`` finds rules and tables as it does in a checkout.

`uv sync` installs the checkout itself (editable) and copies nothing. Called by hatchling (pyproject.toml).
"""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = "ood_reproduction"


class Shipped(BuildHookInterface):
    """Adds what the key ``ships`` of the hook's table names."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        files = {name: f"{FOLDER}/{name}" for name in self.config["ships"]}
        build_data["force_include"] = {**files, "envs/installed.pth": f"{FOLDER}.pth"}
