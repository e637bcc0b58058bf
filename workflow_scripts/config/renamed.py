"""Keys of a configuration that have another name now.

A user's file that has an old one is refused with the new name, wherever it was written before; what it means has not
changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

RENAMED: dict[str, str] = {
    "recipes[].choose": "recipes[].select_best",
    "recipes[].trunk": "recipes[].frozen_blocks",
    "scores[].choose": "scores[].tune",
    "sources.*.datasets": "",
}
"""Old place -> new place, as keys with dots between them: `[]` behind a key stands for each entry of its list, `*` for
each key of a mapping. `recipes[].trunk: recipes[].frozen_blocks`, `datasets.*.keep: datasets.*.only`. An empty new
place: other keys say the same, so this one is gone."""


def renamed(raw: Mapping[str, Any], table: Mapping[str, str] | None = None) -> list[str]:
    """One line for each key of a configuration that has another name now: its place and its new name or place.

    Args:
        raw: as YAML gives it, unchecked.
        table: as :data:`RENAMED`, which is the default.
    """
    lines = []
    for old, new in (RENAMED if table is None else table).items():
        above, _, key = old.rpartition(".")
        there, _, name = new.rpartition(".")
        for place in _places(raw, old.split(".")):
            if not new:
                lines.append(f"{place}: '{key}' is no longer a key; remove it, nothing else changes")
                continue
            called = f"is now called '{name}'" if above == there else f"is now {new}"
            lines.append(f"{place}: '{key}' {called}; write that, it means the same")
    return lines


def _places(value: Any, keys: list[str], at: str = "") -> Iterator[str]:
    """Where in ``value`` a path leads to a key that is given."""
    first, *rest = keys
    name, each = first.removesuffix("[]"), first.endswith("[]")
    if not isinstance(value, Mapping):
        return
    for key in value if name == "*" else [name]:
        if key not in value:
            continue
        place = f"{at}.{key}" if at else str(key)
        if not rest:
            yield place
        elif not each:
            yield from _places(value[key], rest, place)
        elif isinstance(value[key], list):
            for number, entry in enumerate(value[key]):
                yield from _places(entry, rest, f"{place}[{number}]")
