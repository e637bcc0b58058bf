"""First epochs that several trainings share: the same weights to the bit, so they are trained once.

A method declares from which epoch on which of its options count (``MethodSpec.late_from``). Trainings that differ in
those alone have the same start, whatever their recipes are called. Each training with such an epoch goes on from its
start, also where no other shares it: a recipe that is added later then finds it. A training for which that epoch never
comes (CIDER beside NPOS, cross-entropy beside VOS) goes on from the first start that suits it.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from workflow_scripts.core import own, plugins
from workflow_scripts.core.errors import OODError
from workflow_scripts.core.specs import MethodSpec
from workflow_scripts.work.plan import Key, Plan, Trained

_ELSEWHERE = {"name", "label", "method", "options", "released", "defects", "where"}
"""Of a recipe; what of it counts is said otherwise."""


@dataclass(frozen=True, eq=False)
class Start:
    """The first epochs of one training or more, which are the same."""

    name: str
    """Of its file: what it is, so that no other recipe changes it."""
    run: Trained
    """One of those trainings, whose images and parent it reads."""
    epochs: int
    options: Mapping[str, Any]
    """Of the method; those that do not count yet have values that stand for all others."""
    released: tuple[str, ...]
    """Defects that count already."""


@functools.lru_cache(maxsize=8)
def starts(plan: Plan) -> Mapping[Key, Start]:
    """The start of each training that goes on from one."""
    found: dict[Key, Start] = {}
    first: dict[str, Start] = {}
    open_ended: list[tuple[str, Trained]] = []
    for key, run in plan.runs.items():
        recipe = run.recipe
        if not recipe.method or recipe.training is None or _alone(plan, run):
            continue
        spec: MethodSpec = plugins.spec("methods", recipe.method)
        options = asdict(plugins.parse_options("methods", recipe.method, recipe.options, recipe.name))
        early = {name: value for name, value in options.items()
                 if name not in (*spec.late, *spec.gathered, spec.late_from)}
        released = tuple(bug for bug in run.released if bug not in (*spec.late_defects, *spec.never_late))
        base = _text(plan, run, spec, early, released)
        epochs = options[spec.late_from] if spec.late_from else 0
        if _never(spec, options, run):
            open_ended.append((base, run))
        elif 0 < epochs < (recipe.training.epochs or 0):
            gathered = {name: options[name] for name in spec.gathered}
            kept = {**early, **spec.late, **gathered, spec.late_from: epochs}
            name = f"{recipe.method}-{_short([base, kept])}"
            found[key] = Start(name, run, epochs, kept, released)
            first.setdefault(base, found[key])
    found |= {run.key: first[base] for base, run in open_ended if base in first}
    return found


def named(plan: Plan, wildcards: Any) -> Start:
    """The start that wildcards ``id, network, start, seed`` name.

    Raises:
        OODError: no training goes on from it.
    """
    wanted = (wildcards.id, wildcards.network, wildcards.start, int(wildcards.seed))
    for found in starts(plan).values():
        if wanted == (found.run.id, found.run.network.name, found.name, found.run.seed):
            return found
    raise OODError(f"no training of variant '{plan.config.variant}' goes on from {'/'.join(map(str, wanted))}")


def _alone(plan: Plan, run: Trained) -> bool:
    """Whether a training shares nothing: a run cut short, weights not trained here, inputs or draws of its own, a
    method whose file is a user's, of whose word no other training may depend."""
    recipe = run.recipe
    inputs = (recipe.masks, recipe.outliers, run.outliers, run.classifier, run.weights)
    return bool(plan.config.limit.steps or recipe.checkpoint or run.among or any(inputs)
                or own.is_file(recipe.method) or _draws(run))


def _draws(run: Trained) -> bool:
    """Whether a network draws random numbers in training."""
    options = plugins.parse_options("models", run.network.model, run.network.options, run.network.name)
    for word in plugins.spec("models", run.network.model).draws:
        name, _, value = word.partition("=")
        if word == "always" or (str(getattr(options, name)) == value if value else getattr(options, name)):
            return True
    return False


def _never(spec: MethodSpec, options: Mapping[str, Any], run: Trained) -> bool:
    """Whether all of a training is its start."""
    return not spec.late_from or any(name in run.released or not options.get(name, True) for name in spec.never_late)


def _text(plan: Plan, run: Trained, spec: MethodSpec, early: dict[str, Any], released: tuple[str, ...]) -> str:
    """All that the first epochs depend on."""
    method = run.recipe.method
    if spec.early_form and not early and not released:
        method = spec.early_form
        early = asdict(plugins.parse_options("methods", method, {}, method))
    rest = run.recipe.model_dump(mode="json", exclude=_ELSEWHERE)
    network = [run.network.name, run.network.model, run.network.options]  # the parent's file is of that name
    return json.dumps([run.id, run.seed, run.parent, network, rest, method, early, released,
                       plan.config.gpus_of(run.recipe)], sort_keys=True, default=str)


def _short(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:10]
