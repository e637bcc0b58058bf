"""Generate docs/config.md, the reference of every configuration key, from the models and the plugins.

    python -m workflow_scripts.config.reference            write docs/config.md
    python -m workflow_scripts.config.reference --check    exit 1 if the file differs
"""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from workflow_scripts.config import fidelity, models
from workflow_scripts.core import plugins
from workflow_scripts.core.digest import ROOT
from workflow_scripts.core.errors import stage
from workflow_scripts.core.generated import asked_to_check, keep

TARGET = ROOT / "docs" / "config.md"

_PLUGINS = (
    ("Networks", "models", "networks[].model"),
    ("Methods", "methods", "recipes[].method"),
    ("Scores", "scores", "scores[].score"),
    ("Pictures", "pictures", "papers[].pictures[].picture"),
    ("Readers", "data.readers", "the `reader` of a row of `config/datasets.yaml`"),
    ("Metric rules", "metrics.rules", "`experiments[].compat`, with dashes for underscores"),
)


def text() -> str:
    """The whole page as Markdown."""
    lines = ["# Configuration", "", "<!-- generated: uv run python -m workflow_scripts.config.reference -->", "",
             "A configuration is one YAML file: `config.yaml` (the default run) or the one given by `--configfile`, "
             "which stands alone and inherits nothing of `config.yaml`. `--config key=value` changes a key of either. "
             "Of several files the later is put over the earlier, key by key. Files are YAML in UTF-8 with the numbers "
             "of YAML 1.2 (`1e-3` is one; `yes`, `no`, `on` and `off` are booleans). A path that begins with `./` or "
             "`../` is beside the file that names it, on the command line below the folder where that is typed, in "
             "`config:` of a [module](deployment.md) below the folder where the workflow runs. Unknown keys, keys that "
             "are given twice, wrong types and unknown names end the run with one line that names the key.", ""]
    lines += _model("Top level", models.Config)
    for model in _nested(models.Config):
        lines += _model(model.__name__, model)
    for heading, package, where in _PLUGINS:
        lines += [f"## {heading}", "", f"Modules of `workflow_scripts/{package.replace('.', '/')}`, named by {where}."]
        lines[-1] += " Their `options`:" if package not in ("data.readers", "metrics.rules") else ""
        lines.append("")
        for name in plugins.names(package):
            lines += _plugin(package, name)
    lines += ["## Defects", "", "Ids for `fidelity.released` and `recipes[].released`. A method has a switch for those "
              "that concern it, the evaluation for its own (`fidelity.released` alone); others wait for their method.",
              "",
              "| id | what the released code does | switch in |", "|---|---|---|"]
    for bug, what in fidelity.defects().items():
        switch = fidelity.of_evaluation().get(bug, ", ".join(fidelity.methods_with(bug)) or "-")
        lines.append(f"| `{bug}` | {what} | {switch} |")
    return "\n".join(lines).rstrip() + "\n"


def _model(heading: str, model: type[BaseModel]) -> list[str]:
    lines = [f"## {heading}", "", " ".join((model.__doc__ or "").split()), "",
             "| key | type | default | meaning |", "|---|---|---|---|"]
    types = _annotations(model)
    for name, field in model.model_fields.items():
        default = "required" if field.default is PydanticUndefined else _default(field.default)
        meaning = " ".join((field.description or "").split())
        lines.append(f"| `{name}` | `{_cell(types[name])}` | {default} | {_cell(meaning)} |")
    return [*lines, ""]


def _annotations(model: type[BaseModel]) -> dict[str, str]:
    """The types of a model's keys as they are written, those of its bases first."""
    types: dict[str, str] = {}
    for kind in reversed([kind for kind in model.__mro__ if issubclass(kind, BaseModel) and kind is not BaseModel]):
        source = ast.parse(Path(inspect.getfile(kind)).read_text(encoding="utf-8"))
        node = next(n for n in source.body if isinstance(n, ast.ClassDef) and n.name == kind.__name__)
        types |= {ast.unparse(n.target): ast.unparse(n.annotation) for n in node.body if isinstance(n, ast.AnnAssign)}
    return types


def _default(value: Any) -> str:
    if isinstance(value, BaseModel):
        return "its own defaults"
    return "none" if value is None else f"`{value!r}`"


def _plugin(package: str, name: str) -> list[str]:
    tree = ast.parse(plugins.find(package, name, package).read_text(encoding="utf-8"))
    summary = (ast.get_docstring(tree) or "").split("\n\n")[0]
    lines = [f"### {name}", "", " ".join(summary.split()), ""]
    needs = getattr(plugins.spec(package, name), "needs", None)
    if needs is not None:
        lines += [f"Needs: {', '.join(sorted(needs)) or 'nothing'}.", ""]
    fields = plugins.fields(package, name)
    if fields:
        lines += ["| option | type | default | meaning |", "|---|---|---|---|"]
        lines += [f"| `{f}` | `{_cell(kind)}` | `{default}` | {_cell(text)} |" for f, kind, default, text in fields]
        lines.append("")
    space = getattr(plugins.spec(package, name), "space", {})
    if space:
        tried = (f"`{option}` {', '.join(map(str, values))}" for option, values in space.items())
        lines += [f"Values to try: {'; '.join(tried)}.", ""]
    return lines


def _nested(model: type[BaseModel]) -> list[type[BaseModel]]:
    """Models that a model's keys hold, each once, in order."""
    found: list[type[BaseModel]] = []
    for field in model.model_fields.values():
        todo = [field.annotation]
        while todo:
            kind = todo.pop(0)
            todo.extend(get_args(kind))
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found += [m for m in (kind, *_nested(kind)) if m not in found]
    return list(dict.fromkeys(found))


def _cell(value: str) -> str:
    return value.replace("|", "\\|")


@stage
def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    check = asked_to_check(__spec__, __doc__, argv)
    keep(TARGET, text(), __spec__, check)


if __name__ == "__main__":
    main()
