"""Options of a score that a search chose."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any


def read(options: Any, choice: Path | None) -> Any:
    """Options with what a search chose in place of those of the same name; ``None``: as they are."""
    if choice is None:
        return options
    found = json.loads(choice.read_text(encoding="utf-8"))
    return replace(options, **{key: found[key] for key in asdict(options).keys() & found.keys()})
