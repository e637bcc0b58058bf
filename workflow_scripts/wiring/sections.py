"""Sections of the configuration as one text each: the parameters of jobs, which Snakemake compares."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pydantic_core import to_jsonable_python

from workflow_scripts.config.models import Network, Score
from workflow_scripts.core import own, plugins
from workflow_scripts.core.own import Code
from workflow_scripts.core.specs import MethodSpec

if TYPE_CHECKING:
    from workflow_scripts.work.plan import Trained


def dumps(section: Any, ordered: bool = False) -> str:
    """A section as text; keys sorted, so that reordering a file changes nothing, unless their order is shown."""
    return json.dumps(section, sort_keys=not ordered, separators=(",", ":"))


def network(entry: Network) -> dict[str, Any]:
    """What a section's `network` is made of."""
    return {"name": entry.name, "model": entry.model, "options": entry.options}


def network_code(entry: Network) -> tuple[str | Code, ...]:
    """The modules that a network is made of, for its code digest: ours, and a user's own."""
    where = f"network '{entry.name}'"
    return own.network_code(entry.model, plugins.parse_options("models", entry.model, entry.options, where), where)


def confidence(entry: Score) -> str:
    """How a score's values become the confidence that releases threshold (``ScoreSpec.confidence``); "" for none."""
    kinds = plugins.spec("scores", entry.module).confidence
    given = [f"{name}={value}" for name, value in options("scores", entry.module, entry.options).items()]
    return next((kinds[name] for name in (*given, "") if name in kinds), "")


def rules_code(compat: list[str]) -> list[str]:
    """The modules of metric rules, for the code digest."""
    return [f"metrics.rules.{plugins.metric_rules()[rule]}" for rule in compat]


def options(package: str, name: str, values: dict[str, Any]) -> dict[str, Any]:
    """All options with their defaults, so that a changed default counts as a change."""
    parsed = plugins.parse_options(package, name, values, f"{package}.{name}")
    return {key: getattr(parsed, key) for key in parsed.__dataclass_fields__}


def evaluated(run: Trained) -> Any:
    """`normalise` of a network's recipe as its evaluation applies it: another one only as released."""
    how = to_jsonable_python(run.recipe.normalise)
    for defect, trained, other in of_method(run).normalise:
        if defect in run.released and how == {key: list(value) for key, value in trained.items()}:
            return {key: list(value) for key, value in other.items()}
    return how


def of_method(run: Trained) -> MethodSpec:
    """What the method that trains a network declares; the defaults where no method does."""
    return plugins.spec("methods", run.recipe.method) if run.recipe.method else MethodSpec()


def chosen_with(score: Score) -> str:
    """What a sweep reads to choose a score's options: ``statistics`` or ``train`` (features)."""
    return "train" if "train_features" in plugins.spec("scores", score.module).needs else "statistics"
