"""YAML as it is written: no key twice, ``1e-3`` a number, and errors that name the line.

PyYAML reads YAML 1.1, where a second key of one name silently wins, ``1e-3`` is a text, ``010`` is eight and ``1:30``
is ninety. Here numbers are those of YAML 1.2; ``yes``, ``no``, ``on`` and ``off`` stay booleans.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.files import decoded

if TYPE_CHECKING:
    from yaml import Node

_INT = re.compile(r"^[-+]?(?:[0-9][0-9_]*|0x[0-9a-fA-F_]+|0o[0-7_]+)$")
_FLOAT = re.compile(r"^[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|Inf|INF)$"
                    r"|^\.(?:nan|NaN|NAN)$")
_SHOWN = 60  # characters of a line in a message


def read_yaml(path: str | os.PathLike, what: str = "file") -> Any:
    """What a YAML (or JSON) file holds.

    Args:
        what: what is said to be missing where there is none.

    Raises:
        OODError: it is not there, is not UTF-8, is not valid YAML, or gives a key twice; with its line.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise OODError(f"{path}: the {what} is not there") from None
    except OSError as error:
        raise OODError(f"{path}: the {what} cannot be read ({error.strerror})") from None
    return parse_yaml(decoded(content, path), path)


def parse_yaml(text: str, path: str | os.PathLike) -> Any:
    """What a text of YAML (or JSON) holds; ``path`` names it in errors.

    Raises:
        OODError: as :func:`read_yaml`.
    """
    import yaml  # only here: most jobs read none

    loader = _loader()(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _no_key_twice(loader, node, path)
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        if text.lstrip().startswith("{"):  # JSON may be indented by tabs
            with contextlib.suppress(json.JSONDecodeError):
                return json.loads(text, object_pairs_hook=lambda pairs: _once(pairs, path))
        raise OODError(_said(error, text, path)) from None
    except (ValueError, TypeError, AttributeError, OverflowError) as error:  # of a tag, or a number that is none
        raise OODError(f"{path}: a value is not what its tag or form says: {error}") from None
    finally:
        loader.dispose()


def _loader() -> Any:
    """The loader: libyaml's where PyYAML has it (ten times as fast), with our numbers."""
    if not _LOADERS:
        import yaml

        class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
            yaml_implicit_resolvers = {
                first: [(tag, form) for tag, form in known
                        if tag.rpartition(":")[2] not in ("int", "float", "timestamp")]
                for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()}

        Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
        Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))
        Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: _int(loader.construct_scalar(node)))
        _LOADERS.append(Loader)
    return _LOADERS[0]


_LOADERS: list[Any] = []


def _int(text: str) -> int:
    digits = text.replace("_", "")
    base = {"0x": 16, "0o": 8}.get(digits.lstrip("+-")[:2].lower(), 10)
    return int(digits, base)


def _once(pairs: list[tuple[str, Any]], path: str | os.PathLike) -> dict[str, Any]:
    twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    if twice:
        raise OODError(f"{path}: the key '{twice[0]}' is given twice in one mapping; keep one of the two")
    return dict(pairs)


def _no_key_twice(loader: Any, top: Node, path: str | os.PathLike) -> None:
    """Raises OODError where a mapping has a key twice, however it is written (1 and 0x1, yes and true)."""
    import yaml

    todo, seen = [top], set()
    while todo:
        node = todo.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            todo += node.value
        if not isinstance(node, yaml.MappingNode):
            continue
        keys: dict[Any, Node] = {}
        for key, value in node.value:
            todo.append(value)
            if not isinstance(key, yaml.ScalarNode):
                continue
            merge = key.tag == "tag:yaml.org,2002:merge"
            first = keys.setdefault(key.value if merge else loader.construct_object(key), key)
            if first is not key:
                lines = f"line {first.start_mark.line + 1} and in line {key.start_mark.line + 1}"
                raise OODError(f"{path}: the key '{key.value}' is given twice in one mapping, in {lines}; keep one of "
                               "the two")


def _said(error: Any, text: str, path: str | os.PathLike) -> str:
    """What is wrong with a text, its line, and what may be the cause."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        character = getattr(error, "character", None)
        at = text[:getattr(error, "position", 0)].count("\n") + 1
        reason = f"a character that no text has ({character:#x})" if isinstance(character, int) else str(error)
        return f"{path}, line {at}: not valid YAML: {' '.join(reason.split())}"
    lines = text.splitlines() or [""]
    number = min(mark.line, len(lines) - 1)
    reason = " ".join(str(getattr(error, "problem", "") or error).split())
    context = getattr(error, "context_mark", None)
    start = context.line if context is not None and context.line < number else number
    before = next((k for k in range(number, max(-1, number - 3), -1) if _lacks_colon(lines[k])), None)
    tabs = next((k for k in range(number, max(-1, number - 2), -1) if "\t" in _indent(lines[k])), None)
    if tabs is not None:
        hint = f"; line {tabs + 1} is indented by a tab, and YAML is indented by spaces"
    elif before is not None:
        hint = f"; line {before + 1} has no colon: '{lines[before].strip()[:_SHOWN]}'"
    else:
        hint = f"; what is open there begins in line {start + 1}" if start != number else ""
    return f"{path}, line {number + 1}: not valid YAML: {reason}: '{lines[number].strip()[:_SHOWN]}'{hint}"


def _indent(line: str) -> str:
    return line[:len(line) - len(line.lstrip())]


def _lacks_colon(line: str) -> bool:
    """Whether a line looks like a key and its value without a colon between them."""
    words = line.strip().removeprefix("- ")
    return bool(re.match(r"^[A-Za-z_][\w.-]*(\s+\S.*)?$", words)) and not re.search(r":(\s|$)", words)
