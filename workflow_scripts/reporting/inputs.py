"""What a reporting stage is told: its ``--config`` argument, read and checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from workflow_scripts.core.errors import OODError


def read_config(argument: str) -> dict[str, Any]:
    """A stage's config: JSON text, or (longer than a command line may be) the path of a JSON file.

    Raises:
        OODError: neither JSON text nor a readable file of it, or not a mapping.
    """
    text, where = argument, "--config"
    if not argument.lstrip().startswith("{"):
        where = argument
        try:
            text = Path(argument).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise OODError(f"--config: expected JSON text or the path of a JSON file, found '{argument[:80]}' "
                           f"({error}); give one of the two") from None
    try:
        config = json.loads(text)
    except json.JSONDecodeError as error:
        raise OODError(f"{where}: expected JSON, found an error in it ({error}); correct it") from None
    if not isinstance(config, dict):
        raise OODError(f"{where}: expected a JSON mapping, found a {type(config).__name__}")
    return config


def need(mapping: dict[str, Any], key: str, kind: type, where: str) -> Any:
    """``mapping[key]``, which must be there and of type ``kind``.

    Raises:
        OODError: the key is missing or of another type.
    """
    if key not in mapping:
        raise OODError(f"{where}: expected the key '{key}' ({kind.__name__}), found only {sorted(mapping)}; add it")
    value = mapping[key]
    if not isinstance(value, kind):
        raise OODError(f"{where}.{key}: expected a {kind.__name__}, found {value!r}; correct it")
    return value
