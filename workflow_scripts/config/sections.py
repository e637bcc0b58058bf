"""Sections of the configuration as one text each: the parameters of jobs, which Snakemake compares."""

from __future__ import annotations

import json
from typing import Any

from workflow_scripts import plugins
from workflow_scripts.config.models import Network


def dumps(section: Any, ordered: bool = False) -> str:
    """A section as text; keys sorted, so that reordering a file changes nothing, unless their order is shown."""
    return json.dumps(section, sort_keys=not ordered, separators=(",", ":"))


def network(entry: Network) -> dict[str, Any]:
    return {"name": entry.name, "model": entry.model, "options": options("models", entry.model, entry.options)}


def options(package: str, name: str, values: dict[str, Any]) -> dict[str, Any]:
    """All options with their defaults, so that a changed default counts as a change."""
    parsed = plugins.parse_options(package, name, values, f"{package}.{name}")
    return {key: getattr(parsed, key) for key in parsed.__dataclass_fields__}
