"""The sections of stages: one class per stage, which the wiring builds and the stage reads.

    class ScoreSets(Section):
        name: str
        \"\"\"Name of the score in tables.\"\"\"

    text = ScoreSets.of(name="energy").dump()          # the workflow
    parser = stage_parser(__spec__, __doc__, ScoreSets)  # the stage: parser.parse_args().config is a ScoreSets

Both ends check in the same way: an unknown, missing or ill-typed key is an error of one line. A section's module
imports nothing heavy, since the Snakefile imports it; the docstrings below the keys are what ``--help`` prints.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import functools
import inspect
import json
import re
import textwrap
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Annotated, Any, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo
from pydantic_core import to_jsonable_python

from workflow_scripts.core import plugins
from workflow_scripts.core.errors import OODError, nearest

Fraction = Annotated[float, Field(ge=0, le=1)]
PositiveFraction = Annotated[float, Field(gt=0, le=1)]


class Strict(BaseModel):
    """A mapping of a configuration whose unknown keys are errors; where a stage reads it as it is written, a part of
    the stage's section."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True,
                              ser_json_inf_nan="strings")


class Section(BaseModel):
    """A section of a stage, or a part of one; unknown keys and values of another type are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, ser_json_inf_nan="constants")

    @classmethod
    def of(cls, **fields: Any) -> Self:
        """The section of these fields: sections, plain values, and lists and mappings of them.

        Raises:
            OODError: one line about the first key that is unknown, missing or of another type.
        """
        return cls.load(json.dumps(to_jsonable_python(fields)), f"section {_stage_of(cls)}")

    @classmethod
    def taken_from(cls, entry: Any) -> Self:
        """The section whose fields are the attributes of ``entry``, for example of an entry of the configuration;
        what the section does not have is left out.

        Raises:
            OODError: ``entry`` lacks one.
        """
        try:
            return cls.model_validate(entry, strict=False, from_attributes=True)
        except ValidationError as error:
            raise OODError(_line(cls, error, f"section {_stage_of(cls)}")) from None

    @classmethod
    def load(cls, text: str, where: str = "--config") -> Self:
        """The section of a JSON text.

        Raises:
            OODError: one line about the first key that is unknown, missing or of another type; ``where`` begins it.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise OODError(_line(cls, error, where)) from None

    def dump(self, ordered: bool = False) -> str:
        """The section as JSON text, floats with all their digits; keys sorted, so that reordering a file changes
        nothing, unless their order is shown (``ordered``)."""
        return json.dumps(to_jsonable_python(self), sort_keys=not ordered, separators=(",", ":"))


def options_of(package: str, key: str, where: str) -> BeforeValidator:
    """The type of a field that holds the options of a plugin: ``options: Annotated[Any, options_of("models", "model",
    "network '{name}'")]``.

    Args:
        package: of the plugin.
        key: field before it that names the plugin.
        where: begins the line about a wrong option; fields before it are filled in.
    """
    def parse(value: Any, info: ValidationInfo) -> Any:
        if dataclasses.is_dataclass(value) or key not in info.data:  # what is wrong with `key` is reported
            return value
        if not isinstance(value, dict):
            raise ValueError(f"a mapping of options expected, found {value!r}")
        try:
            return _options(package, info.data[key], json.dumps(value), where.format_map(_Named(info.data)))
        except OODError as error:
            raise OODError(str(error).splitlines()[0]) from None

    return BeforeValidator(parse)


@functools.lru_cache(maxsize=1024)
def _options(package: str, name: str, text: str, where: str) -> Any:
    """Options of a plugin, which are frozen; those of one network are asked for by each of its jobs."""
    return plugins.parse_options(package, name, json.loads(text), where)


class _Named(dict[str, Any]):
    """Fields of a section that may lack some."""

    def __missing__(self, key: str) -> str:
        return "?"


def stage_parser(spec: ModuleSpec, text: str, section: type[Section]) -> argparse.ArgumentParser:
    """The parser of a stage, run as ``python -m``: ``--config`` gives its section, ``--help`` its docstring and keys.

    Args:
        spec: ``__spec__`` of the stage.
        text: its docstring.
        section: its class; the argument is JSON text, or (longer than a command line may be) the path of a JSON file.
    """
    parser = _Parser(prog=f"python -m {spec.name}", description=text,
                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.section = section
    parser.add_argument("--config", required=True, type=functools.partial(_argument, section), metavar="JSON",
                        help=f"JSON text or a file of it: {', '.join(section.model_fields)} (below)")
    return parser


class _Parser(argparse.ArgumentParser):
    """Its help ends with the keys of a section, which are read only when somebody asks."""

    section: type[Section]

    def format_help(self) -> str:
        self.epilog = _help(self.section)
        return super().format_help()


def _argument(section: type[Section], argument: str) -> Section:
    """The section that ``--config`` gives. Raises OODError where it is no JSON text or file of it."""
    if argument.lstrip().startswith("{"):
        return section.load(argument)
    try:
        return section.load(Path(argument).read_text(encoding="utf-8"), argument)
    except (OSError, ValueError) as error:
        raise OODError(f"--config: expected JSON text of a mapping or the path of a JSON file, found "
                       f"'{argument[:80]}' ({error}); give one of the two") from None


def _stage_of(section: type[Section]) -> str:
    return section.__module__.rpartition(".")[2]


def _line(section: type[Section], error: ValidationError, where: str) -> str:
    """One line about what is wrong: an unknown key first, since it may be the misspelling of a missing one."""
    allowed = _keys(section)
    found = list(zip(error.errors(), plugins.explain(error, where, allowed), strict=True))
    order = ["extra_forbidden", "missing"]
    problem, line = min(found, key=lambda pair: order.index(pair[0]["type"]) if pair[0]["type"] in order else 2)
    path = line.partition(": ")[0]
    same = [p for p, said in found if said.partition(": ")[0] == path]  # several where a key may be of several types
    if problem["type"] == "missing":
        parents: tuple[str, ...] = ()
        for part in problem["loc"][:-1]:  # positions in lists and names of types are no keys
            parents = (*parents, str(part)) if (*parents, part) in allowed else parents
        given = ", ".join(problem["input"]) if isinstance(problem["input"], dict) else ""
        line = f"{line}; expected {', '.join(allowed[parents])}, found {given or 'nothing'}"
    elif problem["type"] != "extra_forbidden" and len(same) > 1:
        kinds = " or ".join(dict.fromkeys(p["msg"].removeprefix("Input should be ") for p in same))
        line = f"{path}: Input should be {kinds} (found {problem['input']!r})"
    named = next(iter(problem["input"]), "") if isinstance(problem["input"], dict) else problem["input"]
    choices = [name for p in same for name in re.findall(r"'([^']*)'", p["msg"])]
    return " ".join((line + nearest(str(named), choices)).split())


def _parts(annotation: Any) -> list[type[Section]]:
    """The sections that a field's type is made of."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [part for inner in get_args(annotation) for part in _parts(inner)]


def _keys(section: type[Section], at: tuple[str, ...] = ()) -> dict[tuple[str, ...], list[str]]:
    """Keys of every mapping of a section by its place, positions in lists left out."""
    places = {at: list(section.model_fields)}
    for name, field in section.model_fields.items():
        for part in _parts(field.annotation):
            for place, keys in _keys(part, (*at, name)).items():
                places[place] = places.get(place, []) + keys
    return places


def documented(section: type[Section]) -> dict[str, str]:
    """Docstring of each key of a section; read from the source only when it is asked for, which takes time."""
    said: dict[str, str] = {}
    for kind in reversed(section.__mro__):
        if kind in (Section, BaseModel) or not issubclass(kind, Section):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0].body  # type: ignore[attr-defined]
        for node, after in zip(body, body[1:], strict=False):
            text = after.value if isinstance(after, ast.Expr) else None
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and isinstance(text, ast.Constant):
                said[node.target.id] = " ".join(str(text.value).split())
    return said


def _help(section: type[Section]) -> str:
    """The keys of a section and of the sections in it, with their docstrings."""
    lines, todo, seen = [], [section], {section}
    while todo:
        kind = todo.pop(0)
        said = documented(kind)
        lines.append("keys of --config:" if kind is section else f"keys of {kind.__name__}:")
        for name, field in kind.model_fields.items():
            given = field.is_required() or field.default_factory is not None
            default = "" if given else f" (left out: {json.dumps(to_jsonable_python(field.default))})"
            lines += textwrap.wrap(f"{said.get(name, '')}{default}", 100, initial_indent=f"  {name:<14}  ",
                                   subsequent_indent=" " * 18) or [f"  {name}"]
            new = [part for part in _parts(field.annotation) if part not in seen]
            seen.update(new)
            todo += new
    return "\n".join(lines)
