"""Scores joined with a background score (DFB): which an experiment has, and what they need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workflow_scripts.config.models import Experiment, Score
from workflow_scripts.core import plugins
from workflow_scripts.core.errors import OODError

if TYPE_CHECKING:
    from workflow_scripts.work.expand import Plan, Trained


def fused(experiment: Experiment) -> list[str]:
    """Scores of an experiment that are joined with its background score."""
    return [name for name in experiment.scores if experiment.fusion and name != experiment.fusion.background]


def columns(experiment: Experiment) -> list[str]:
    """Scores that an experiment reports: each one, and behind it the one that joins it with the background."""
    return [column for name in experiment.scores
            for column in (name, *([f"{name}_fused"] if name in fused(experiment) else []))]


def join(plan: Plan, run: Trained, experiment: Experiment, where: str) -> None:
    """Enter the joined scores, and refuse background scores of a network without a background."""
    fusion = experiment.fusion
    if fusion and fusion.background not in experiment.scores:
        raise OODError(f"{where}.fusion.background: '{fusion.background}' is not among the experiment's scores")
    for name in fused(experiment):
        base = run.scores[name]
        run.scores[f"{name}_fused"] = Score(
            name=f"{name}_fused", label=f"{base.label or name} + background", score="fusion",
            options={**fusion.model_dump(), "base": name})
    for name, score in run.scores.items():
        needs = plan.needs(run, name)
        if "background" in needs and not plan.background(run):
            raise OODError(f"{where}.scores: '{name}' needs a background output; recipe '{run.recipe.name}' has "
                           "none (method dense does)")
        for key in ("base", "background") if "scores" in needs else ():
            other = plugins.parse_options("scores", score.module, score.options, name)
            joined = run.scores.get(getattr(other, key))
            if key == "base" and joined and not plugins.spec("scores", joined.module).joined:
                raise OODError(f"{where}.scores: '{name}' joins '{other.base}' (option base), and scores of module "
                               f"{joined.module} cannot be joined with a background score")
            if joined is None:
                raise OODError(f"{where}.scores: '{name}' joins '{getattr(other, key)}' (option {key}), which is "
                               "not among the experiment's scores")
