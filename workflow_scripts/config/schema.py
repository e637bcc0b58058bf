"""Generate config/schemas, the JSON schemas by which an editor completes and checks the YAML files of ``config``.

    python -m workflow_scripts.config.schema            write config/schemas/*.json
    python -m workflow_scripts.config.schema --check    exit 1 if a file differs

They are made of the same models as the checks of a run. What joins several keys (a name that is defined elsewhere, two
keys that exclude each other) only the run checks. A file that includes another, or is included, need not be complete,
so no key of the top level is required.
"""

from __future__ import annotations

import json
import math
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import models_json_schema

from workflow_scripts.config import fidelity
from workflow_scripts.config.catalogue import Dataset
from workflow_scripts.config.image_lists import ImageLists
from workflow_scripts.config.models import Config
from workflow_scripts.config.published_checks import PublishedChecks
from workflow_scripts.config.published_numbers import Reference
from workflow_scripts.config.raw import Source
from workflow_scripts.config.zoo import Zoo
from workflow_scripts.core import own, plugins
from workflow_scripts.core.digest import ROOT
from workflow_scripts.core.errors import stage
from workflow_scripts.core.generated import asked_to_check, keep

FOLDER = ROOT / "config" / "schemas"
Schema = dict[str, Any]

_NAMED = {"Network": ("model", "models"), "Recipe": ("method", "methods"), "Score": ("score", "scores"),
          "Picture": ("picture", "pictures"), "Dataset": ("reader", "data.readers"), "Scored": ("module", "scores")}
"""Model -> its key that names a plugin, whose options stand under `options`, and the plugin's package."""


def schemas() -> dict[str, Schema]:
    """The content of each file, by its name without `.json`."""
    return {
        "config": _of(Config, Dataset),
        "datasets": _table(Dataset),
        "sources": _table(Source),
        "imglists": _of(ImageLists),
        "published_checks": _of(PublishedChecks),
        "reference": _nameless(_of(Reference)),
        "zoo": _of(Zoo),
    }


def _of(model: type[BaseModel], *more: type[BaseModel]) -> Schema:
    """The schema of a file that is one model."""
    definitions = _definitions(model, *more)
    whole: Schema = definitions.pop(model.__name__)
    whole.pop("required", None)
    if "Dataset" in definitions:  # the rows of a table in a configuration are checked when the table is read
        rows = whole["properties"]["datasets"]["patternProperties"]
        rows |= dict.fromkeys(rows, _reference("Dataset"))
    return _file(whole, definitions)


def _table(row: type[BaseModel]) -> Schema:
    """The schema of a file that maps names to rows."""
    return _file({"type": "object", "additionalProperties": _reference(row.__name__)}, _definitions(row))


def _file(whole: Schema, definitions: Schema) -> Schema:
    return {"$comment": "written by python -m workflow_scripts.config.schema; do not edit", **whole,
            "$defs": definitions}


def _nameless(file: Schema) -> Schema:
    """A published recipe has the name of its training."""
    recipe = file["$defs"]["Recipe"]
    recipe["required"] = [key for key in recipe["required"] if key not in ("name", "label")]
    return file


def _definitions(*models: type[BaseModel]) -> Schema:
    """Each model with the models that it holds and the options of the plugins that it names."""
    _, found = models_json_schema([(model, "validation") for model in models])
    definitions: Schema = found["$defs"]
    for model, (key, package) in _NAMED.items():
        if model in definitions:
            definitions |= _options(package)
            _name_plugins(definitions[model], key, package)
    if "Experiment" in definitions:
        definitions["Experiment"]["properties"]["compat"]["items"] = {"enum": sorted(plugins.metric_rules())}
    if "Fidelity" in definitions:
        definitions["Fidelity"]["properties"]["released"]["items"] = {"enum": list(fidelity.defects())}
    for row in ("Dataset", "Source"):
        if row in definitions:
            del definitions[row]["properties"]["name"]  # the row's key
    if "Dataset" in definitions:  # a row `of` another has its keys
        definitions["Dataset"]["anyOf"] = [{"required": definitions["Dataset"].pop("required")}, {"required": ["of"]}]
    plain: Schema = _plain(definitions)
    return plain


def _options(package: str) -> Schema:
    """The options of each plugin of a package, with what their docstrings say."""
    found: Schema = {}
    for name in plugins.names(package):
        options = TypeAdapter(plugins.options_class(package, name)).json_schema()
        assert "$defs" not in options, f"{package}.{name}: options of plain types expected"
        for key, _, _, text in plugins.fields(package, name):
            options["properties"][key]["description"] = text
        if package == "data.readers":  # one option may be said for all splits, another for each
            options.pop("required", None)
        found[f"{package}.{name}"] = options
    return found


def _name_plugins(model: Schema, key: str, package: str) -> None:
    """Let ``key`` name a plugin, and `options` be its options."""
    names = {"enum": [*plugins.names(package), *([model["properties"][key]["default"]]
                                                 if "default" in model["properties"][key] else [])]}
    model["properties"][key] |= {"anyOf": [names, {"pattern": r"[/\\]|\.py$"}]} if package in own.FILES else names
    conditions = model.setdefault("allOf", [])
    for name in plugins.names(package):
        named: Schema = {"properties": {key: {"const": name}}, "required": [key]}
        if model["properties"][key].get("default") == "" and package == "scores":  # left out: the entry's own name
            named = {"anyOf": [named, {"properties": {"name": {"const": name}}, "required": ["name"],
                                       "not": {"required": [key]}}]}
        options = _reference(f"{package}.{name}")
        split = {"splits": {"additionalProperties": {"anyOf": [options, {"type": "null"}]}}}
        conditions.append({"if": named, "then": {
            "properties": {"options": options, **(split if package == "data.readers" else {})}}})


def _reference(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _plain(value: Any) -> Any:
    """Without pydantic's titles, which repeat the keys, and without defaults that JSON cannot write (infinity)."""
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    return {key: _plain(entry) for key, entry in value.items()
            if not (key == "title" and isinstance(entry, str))
            and not (key == "default" and isinstance(entry, float) and not math.isfinite(entry))}


@stage
def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    check = asked_to_check(__spec__, __doc__, argv)
    for name, content in schemas().items():
        keep(FOLDER / f"{name}.json", json.dumps(content, indent=1, allow_nan=False) + "\n", __spec__, check)


if __name__ == "__main__":
    main()
