"""Scores joined with a background score (DFB): which an experiment has, and what they need."""

from __future__ import annotations

from workflow_scripts.config.models import Experiment, Recipe, Score
from workflow_scripts.core.errors import OODError
from workflow_scripts.work import declared


def fused(experiment: Experiment) -> list[str]:
    """Scores of an experiment that are joined with its background score."""
    return [name for name in experiment.scores if experiment.fusion and name != experiment.fusion.background]


def columns(experiment: Experiment) -> list[str]:
    """Scores that an experiment reports: each one, and behind it the one that joins it with the background."""
    return [column for name in experiment.scores
            for column in (name, *([f"{name}_fused"] if name in fused(experiment) else []))]


def join(scores: dict[str, Score], experiment: Experiment, recipe: Recipe, where: str) -> dict[str, Score]:
    """A network's scores with those that join them with the background score.

    Args:
        scores: of all experiments so far that report the network, by name.
        experiment: whose scores are among them.
        recipe: of the network.
        where: the experiment's place in the configuration.

    Raises:
        OODError: a background score of a network without a background; a score that is joined and not there.
    """
    fusion = experiment.fusion
    if fusion and fusion.background not in experiment.scores:
        raise OODError(f"{where}.fusion.background: '{fusion.background}' is not among the experiment's scores")
    joined, options = dict(scores), fusion.model_dump() if fusion else {}
    for name in fused(experiment):
        joined[f"{name}_fused"] = Score(
            name=f"{name}_fused", label=f"{scores[name].label or name} + background", score="fusion",
            options={**options, "base": name})
    for name, score in joined.items():
        if "background" in declared.needs(score) and not declared.background(recipe):
            raise OODError(f"{where}.scores: '{name}' needs a background output; recipe '{recipe.name}' has "
                           "none (method dense does)")
        for key, other in declared.joins(score).items():
            found = joined.get(other)
            if key == "base" and found and not declared.joined(found):
                raise OODError(f"{where}.scores: '{name}' joins '{other}' (option base), and scores of module "
                               f"{found.module} cannot be joined with a background score")
            if found is None:
                raise OODError(f"{where}.scores: '{name}' joins '{other}' (option {key}), which is "
                               "not among the experiment's scores")
    return joined
