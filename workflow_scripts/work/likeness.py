"""How far what we run is from what a source declares: every key of both, and which differences are harmless.

A recipe, the options of a score or a row of the table of datasets is laid flat by dotted keys (``training.lr``),
defaults filled in. Two are alike where all keys agree, or where those that do not are the keys of a declared difference
with just its values.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict
from functools import cache
from pathlib import PurePath
from typing import Any, NamedTuple

from workflow_scripts.config import catalogue
from workflow_scripts.config.catalogue import Dataset
from workflow_scripts.config.models import Network, Recipe
from workflow_scripts.core import plugins
from workflow_scripts.core.digest import ROOT
from workflow_scripts.work import declared

Flat = dict[str, Any]

SHOWN = 3  # differing keys that a reason names
LONG = 40  # characters of a value beyond which its key alone is named
APART = {"name", "label", "where", "defects"}  # keys of a recipe that say nothing of how it trains
SAME_NUMBERS = {"training.gpus"}  # the result is that of one GPU (docs/several_gpus.md)
PLACES = {"files", "devkit", "archive", "label", "about", "licence", "citation", "url", "name", "instead"}
"""Keys of a row of the table of datasets that say where its files lie, or document it."""


class Likeness(NamedTuple):
    """What is left between ours and what a source declares."""

    differing: tuple[str, ...]
    """A phrase for each key that differs: ``training.lr is 0.001, published with 0.1``."""
    but_for: tuple[str, ...]
    """The declared differences that hold."""

    @property
    def reason(self) -> str:
        """The first few differing keys."""
        more = len(self.differing) - SHOWN
        return "; ".join(self.differing[:SHOWN]) + (f"; and {more} more" if more > 0 else "")


def compare(ours: Flat, theirs: Flat, alternatives: Mapping[str, Flat] | None = None,
            ignore: Collection[str] = ()) -> Likeness:
    """Ours against what a source declares.

    Args:
        alternatives: declared differences: how each is called -> what the source would declare with it.
        ignore: keys that change no number.
    """
    differing = [key for key in dict.fromkeys([*theirs, *ours])
                 if key not in ignore and ours.get(key) != theirs.get(key)]
    but_for = []
    for words, other in (alternatives or {}).items():
        changed = {key for key in {*other, *theirs} if other.get(key) != theirs.get(key)}
        if changed & set(differing) and all(ours.get(key) == other.get(key) for key in changed):
            differing = [key for key in differing if key not in changed]
            but_for.append(words)
    return Likeness(tuple(_phrase(key, ours.get(key), theirs.get(key)) for key in differing), tuple(but_for))


def _phrase(key: str, ours: Any, theirs: Any) -> str:
    if key.startswith("released."):
        ours, theirs = bool(ours), bool(theirs)
    if max(len(str(ours)), len(str(theirs))) > LONG:
        return f"{key} differs"
    return f"{key} is {_said(ours)}, published with {_said(theirs)}"


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_said, value))}]"
    return "nothing" if value is None else str(value)


def recipe(given: Recipe, released: Collection[str]) -> Flat:
    """A recipe but for its name, its parent, and outliers that are not read; ``released.npos.B1`` says a defect.

    Of weights from a file its name counts.
    """
    found = given.model_dump(exclude=APART | {"parent", "released", "options", "checkpoint"})
    if given.method:
        found["options"] = asdict(plugins.parse_options("methods", given.method, given.options, given.name))
    if given.checkpoint:
        found["checkpoint"] = PurePath(given.checkpoint.file).name
    if declared.outliers(given, tuple(released)) is None:
        found["outliers"] = None
    found["released"] = {defect: True for defect in released}  # a switch that is off is no key: not all recipes have it
    return {key: value for key, value in _flat(found).items() if key not in SAME_NUMBERS}


def network(given: Network) -> Flat:
    """An architecture, by its module and options."""
    return architecture(given.model, given.options)


def architecture(model: str, options: Mapping[str, Any]) -> Flat:
    return {"model": model, **_flat({"options": asdict(plugins.parse_options("models", model, options, model))})}


def score(module: str, options: Mapping[str, Any]) -> Flat:
    """A score, by its module and options."""
    return {"score": module, **_flat({"options": asdict(plugins.parse_options("scores", module, options, module))})}


def dataset(row: Dataset) -> Flat:
    """What of a row decides which images it has, and in which geometry."""
    return {key: value for key, value in _flat(row.model_dump()).items() if not PLACES & set(key.split("."))}


@cache
def shipped() -> dict[str, Dataset]:
    """The table of datasets without a configuration's own rows."""
    return catalogue.load(ROOT / "config" / "datasets.yaml")


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Flat:
    """Leaves of a tree by dotted key; what is not given (``None``) is no leaf."""
    leaves: Flat = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            leaves |= _flat(value, f"{prefix}{key}.")
        elif value is not None:
            leaves[f"{prefix}{key}"] = value
    return leaves
