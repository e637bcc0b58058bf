"""Reading a configuration: includes, places of own files, validation with one line per problem."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from workflow_scripts.config import zoo
from workflow_scripts.config.models import Config
from workflow_scripts.config.renamed import renamed
from workflow_scripts.core.errors import OODError
from workflow_scripts.core.plugins import explain
from workflow_scripts.core.yaml_files import parse_yaml, read_yaml

# Snakemake's own keys may stand in a configuration beside ours.
_LISTS = ("networks", "recipes", "scores", "papers", "experiments", "imported")
_MAPPINGS = ("datasets", "notes")


def load_config(raw: dict[str, Any], root: Path) -> Config:
    """The checked configuration.

    Args:
        raw: what YAML files and ``--config`` say (:func:`given`).
        root: folder that ``include`` paths are relative to, and paths in ``raw`` that begin with ``./`` or ``../``.

    Raises:
        OODError: one line per problem: key, what was found, what is allowed, the nearest match; or, for each key that
            has another name now, that name.
    """
    whole = zoo.expanded(with_includes(placed(raw, root), root))
    if old := renamed(whole):
        raise OODError("\n".join(old))
    try:
        return Config.model_validate(whole)
    except ValidationError as error:
        lines = explain(error, "", _allowed(Config))
        raise OODError("\n".join(line.removeprefix(": ") for line in lines)) from None


def given(files: Sequence[Path], pairs: Sequence[str], here: Path) -> dict[str, Any]:
    """What a command line gives: configuration files, each over the one before it key by key, and ``KEY=VALUE`` over
    all. Paths in them are :func:`placed`: those of a file beside it, those of the command line below ``here``.

    Raises:
        OODError: a file that is not there, is no valid YAML or no mapping; a pair that is none.
    """
    merged: dict[str, Any] = {}
    for path in files:
        content = read_yaml(path, "configuration file")
        if not isinstance(content, dict):
            raise OODError(f"{path}: a mapping of keys expected, found {type(content).__name__}")
        merged = _over(merged, placed(content, path.absolute().parent))
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise OODError(f"--config: KEY=VALUE expected, found '{pair}'")
        merged = _over(merged, {key: placed(_value(text, key), here)})
    return merged


def _value(text: str, key: str) -> Any:
    """A value of the command line: as it would stand in a file, or where that is no YAML, the text."""
    try:
        return parse_yaml(text, f"--config {key}")
    except OODError as error:
        if text.startswith(("{", "[")):
            raise error
        return text


def _over(below: Any, above: Any) -> Any:
    """Mappings one over the other, key by key at every depth, as Snakemake merges them; other values replace."""
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    return {**below, **{key: _over(below.get(key), value) for key, value in above.items()}}


def with_includes(raw: dict[str, Any], root: Path, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    """``raw`` over the files it includes: lists and mappings are joined, equal entries once, other keys replaced.

    Args:
        raw: with its own paths :func:`placed`.
    """
    merged: dict[str, Any] = {}
    includes = raw.get("include", [])
    for name in includes if isinstance(includes, list) else []:
        if name in seen:
            raise OODError(f"include: {' -> '.join([*seen, name])} goes round in a circle")
        path = root / str(name)
        if not path.is_file():
            raise OODError(f"include: there is no file {name} (paths are relative to the repository; ./ and ../ to the "
                           "configuration file)")
        below = read_yaml(path) or {}
        if not isinstance(below, dict):
            raise OODError(f"include: {name}: a mapping of keys expected, found {type(below).__name__}")
        merged = _join(merged, with_includes(placed(below, path.parent), root, (*seen, name)))
    return _join(merged, raw)


def placed(value: Any, folder: Path) -> Any:
    """The configuration with every text that begins with ``./`` or ``../``, and ``.``, as a path below ``folder``.

    So own files lie beside the configuration file that names them, wherever the workflow is started.
    """
    if isinstance(value, dict):
        return {key: placed(entry, folder) for key, entry in value.items()}
    if isinstance(value, list):
        return [placed(entry, folder) for entry in value]
    own = isinstance(value, str) and (value == "." or value.startswith(("./", "../")))
    return os.path.normpath(folder.absolute() / value) if own else value


def _join(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    joined = {**below, **above}
    for key in _LISTS:
        if isinstance(below.get(key, []), list) and isinstance(above.get(key, []), list):
            entries = below.get(key, []) + above.get(key, [])
            unique = [entry for i, entry in enumerate(entries) if entry not in entries[:i]]
            if unique:
                joined[key] = unique
    for key in _MAPPINGS:
        if isinstance(below.get(key, {}), dict) and isinstance(above.get(key, {}), dict):
            joined[key] = {**below.get(key, {}), **above.get(key, {})}
    return joined


def _allowed(model: type[BaseModel], at: tuple = ()) -> dict[tuple, list[str]]:
    """Allowed keys of every mapping of ``model`` by its place (list positions left out)."""
    places = {at: list(model.model_fields)}
    for name, field in model.model_fields.items():
        todo = [field.annotation]
        while todo:
            kind = todo.pop()
            todo.extend(get_args(kind))
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                for place, keys in _allowed(kind, (*at, name)).items():
                    places[place] = places.get(place, []) + keys
    return places
