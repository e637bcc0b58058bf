"""Plugins: one module per dataset reader, network, method, score, picture and metric rule, found by name and imported
only when run.

A score or a method may also be a user's own file: its name is then the path, and its ``Options`` may be left out.

A plugin declares itself by ``SPEC`` (:mod:`workflow_scripts.core.specs`) and states its options as a frozen standard
dataclass ``Options`` with a docstring below each field. The configuration must be checked without importing torch, so
both are read out of the module's syntax tree. The class is executed alone; therefore it may use only builtins,
``typing``, ``dataclasses`` and ``annotated_types``.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from workflow_scripts.core import own, specs
from workflow_scripts.core.errors import OODError, nearest, unknown

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

ROOT = Path(__file__).resolve().parents[1]
# parts of a pydantic location that name a branch of a union, not a key: int, list[int], MeanStd, ...
_BRANCH = re.compile(r"^(int|float|str|bool|none)$|[\[(]|^[A-Z]\w+$")
_ALLOWED_IMPORTS = {"dataclasses", "typing", "annotated_types", "enum", "collections"}
_PLUGIN = re.compile(r"^(class Options|SPEC = )", re.MULTILINE)


@functools.cache
def names(package: str) -> tuple[str, ...]:
    """Names of the plugins in ``package`` (``"scores"``, ``"models"``, ``"methods"``, ``"data.readers"``): the modules
    there that define ``SPEC`` or ``class Options``."""
    folder = ROOT.joinpath(*package.split("."))
    return tuple(sorted(p.stem for p in folder.glob("*.py") if _PLUGIN.search(p.read_text(encoding="utf-8"))))


def metric_rules() -> dict[str, str]:
    """The papers' metric rules: name, as `compat` and metrics (``auroc@bg-resample``) have it -> module."""
    return {name.replace("_", "-"): name for name in names("metrics.rules")}


def find(package: str, name: str, where: str) -> Path:
    """The plugin's file. Raises OODError naming ``where`` when there is none."""
    if own.is_file(name) and package in own.FILES:
        own.parsed(Path(name), where)
        return Path(name)
    path = ROOT.joinpath(*package.split("."), f"{name}.py")
    if not path.is_file() or name not in names(package):
        raise unknown(where, name, names(package))
    return path


def load(package: str, name: str) -> ModuleType:
    """Import the plugin (and whatever it needs)."""
    if own.is_file(name):
        return own.load_file(package, name)
    return importlib.import_module(f"workflow_scripts.{package}.{name}")


@functools.cache
def _tree(package: str, name: str) -> ast.Module:
    path = find(package, name, package)
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@functools.cache
def spec(package: str, name: str) -> Any:
    """The plugin's declaration, without importing it.

    Raises:
        OODError: there is no such plugin, or its declaration is not in order.
    """
    path = find(package, name, package)
    shown = path if own.is_file(name) else path.relative_to(ROOT.parent).as_posix()
    return specs.read(_tree(package, name), specs.KINDS[package], shown)


@functools.cache
def options_class(package: str, name: str) -> type:
    """The plugin's ``Options`` dataclass, without importing the plugin.

    Raises:
        OODError: the class needs more of the module than it may.
    """
    body = []
    for node in _tree(package, name).body:
        module = node.module if isinstance(node, ast.ImportFrom) else None
        plain = isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant | ast.Tuple)
        if (module or "").split(".")[0] in _ALLOWED_IMPORTS or plain:
            body.append(node)
        elif isinstance(node, ast.ClassDef) and node.name == "Options":
            body.append(node)
            break
    scope: dict[str, Any] = {"__name__": __name__}
    try:
        exec(compile(ast.Module(body, []), f"{package}.{name}", "exec", dont_inherit=True), scope)
    except Exception as error:
        raise OODError(f"{find(package, name, package)}: class Options is made without running the rest of the file, "
                       "so it can use builtins, constants above it and "
                       f"{', '.join(sorted(_ALLOWED_IMPORTS))}; {type(error).__name__}: {error}") from None
    options: Any = scope.get("Options") or dataclasses.make_dataclass("Options", [], frozen=True)
    options.__pydantic_config__ = {"extra": "forbid"}
    return options


@functools.cache
def _adapter(package: str, name: str) -> TypeAdapter:
    from pydantic import TypeAdapter

    return TypeAdapter(options_class(package, name))


@functools.cache
def fields(package: str, name: str) -> tuple[tuple[str, str, str, str], ...]:
    """(field, type, default, docstring) of each option, for the generated reference."""
    body = next((n.body for n in _tree(package, name).body if isinstance(n, ast.ClassDef) and n.name == "Options"), [])
    rows = []
    for node, after in zip(body, [*body[1:], None] if body else [], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            documented = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and after.value.value
            text = " ".join(str(documented or "").split())
            default = ast.unparse(node.value) if node.value else "required"
            rows.append((node.target.id, ast.unparse(node.annotation), default, text))
    return tuple(rows)


def parse_options(package: str, name: str, values: Mapping[str, Any], where: str) -> Any:
    """Check ``values`` against the plugin's options and return them as its ``Options``; its declaration is checked too.

    Raises:
        OODError: unknown plugin, unknown key, wrong type or a value out of range; ``where`` names the place.
    """
    from pydantic import ValidationError

    find(package, name, where)
    if package in specs.KINDS:
        spec(package, name)
    try:
        return _adapter(package, name).validate_python(dict(values))
    except ValidationError as error:
        raise OODError("\n".join(explain(error, where, {(): [row[0] for row in fields(package, name)]}))) from None


def within(limits: tuple[tuple[str, str, Any, str], ...], options: Any, recipe: dict[str, Any], where: str) -> None:
    """Check a method's ``at_most``: entries (option, other option, its value, key of the recipe).

    Raises:
        OODError: where the other option has that value, the option is more than the recipe's key says.
    """
    for name, other, value, key in limits:
        found, most = getattr(options, name), recipe
        for part in key.split("."):
            most = most[part]
        if getattr(options, other) == value and found > most:
            raise OODError(f"{where}options.{name}: {other} '{value}' cannot use {name} = {found} with {key} {most}; "
                           f"lower {name} or enlarge the batch")


def explain(error: ValidationError, where: str, keys: dict[tuple, list[str]] | None = None) -> list[str]:
    """One line per problem: the key, what was found, what is allowed, the nearest match.

    ``keys`` gives the allowed keys of the mapping at a location (a tuple of keys below ``where``), for unknown keys.
    """
    lines = []
    for problem in error.errors():
        location = tuple(p for p in problem["loc"] if isinstance(p, int) or not _BRANCH.search(p))
        path = where
        for part in location:
            path += f"[{part}]" if isinstance(part, int) else (f".{part}" if path else str(part))
        found = problem["input"]
        if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            allowed = (keys or {}).get(tuple(p for p in location[:-1] if not isinstance(p, int)), [])
            close = nearest(str(location[-1]), allowed) or "."
            hint = f"{close} Allowed here: {', '.join(allowed)}." if allowed else ""
            lines.append(f"{path}: unknown key '{location[-1]}'{hint}")
        elif problem["type"] in ("missing", "missing_argument"):
            lines.append(f"{path}: required but missing")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            lines.append(f"{path}: {message}" + (f" (found {found!r})" if problem["type"] != "value_error" else ""))
    return lines
