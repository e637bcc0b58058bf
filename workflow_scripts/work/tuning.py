"""Scores whose options an experiment chooses: which it has, and on which images."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Mapping
from typing import get_args

from workflow_scripts.config.models import Experiment, Score, Tuning
from workflow_scripts.core import plugins
from workflow_scripts.core.errors import OODError, unknown
from workflow_scripts.reporting.inputs import Way
from workflow_scripts.stages.sections.extract_pseudo_ood import Copied
from workflow_scripts.work import declared
from workflow_scripts.work.plan import Plan, Tuned
from workflow_scripts.work.together import images


def ways(tuning: Tuning) -> list[Way]:
    """The ways that an experiment chooses options in, beside those as configured."""
    return [way for way in get_args(Way) if way != "validation" or tuning.ood]


def tunable(score: Score) -> bool:
    """Whether a score's options can be chosen: it declares a space, joins no other scores, and no sweep chooses."""
    return bool(plugins.spec("scores", score.module).space and score.tune is None
                and "scores" not in declared.needs(score))


def chosen(scores: Mapping[str, Score], known: Container[str], experiment: Experiment,
           where: str) -> dict[str, tuple[Score, Tuned]]:
    """The scores that an experiment's tuning adds, by name.

    Args:
        scores: scores of a network so far, by name, with those of the experiment.
        known: names among them that an experiment before added.
        where: the experiment's place in the configuration.

    Raises:
        OODError: none of them has options to choose, or a name is taken.
    """
    if taken := [name for name in experiment.scores if name in known]:
        raise OODError(f"{where}.scores: '{taken[0]}' is also the name of a score that the tuning of another "
                       "experiment adds; rename it")
    if experiment.tuning is None:
        return {}
    found = {}
    for name in experiment.scores:
        score = scores[name]
        for way in ways(experiment.tuning) if tunable(score) else ():
            new = f"{name}_{way}"
            if new in scores and new not in known:
                raise OODError(f"{where}.tuning: it adds a score '{new}', and one is called so already; rename it")
            named = {"name": new, "label": f"{score.label or name} ({way})", "score": score.module}
            found[new] = score.model_copy(update=named), Tuned(name, way)
    if not found:
        raise OODError(f"{where}.tuning: none of the experiment's scores has options to choose (docs/scores.md, values "
                       "to try); leave the key out or name such a score")
    return found


def collect(experiments: Iterable[Experiment]) -> dict[str, Tuning]:
    """How options are chosen on each ID set.

    Raises:
        OODError: two experiments on one ID set choose them otherwise, or options of the copies do not fit.
    """
    found: dict[str, Tuning] = {}
    for number, experiment in enumerate(experiments):
        where = f"experiments[{number}].tuning"
        if experiment.tuning is not None:
            Copied.load(json.dumps(experiment.tuning.pseudo_ood), f"{where}.pseudo_ood")
            if found.setdefault(experiment.id, experiment.tuning) != experiment.tuning:
                raise OODError(f"{where}: another experiment on '{experiment.id}' chooses options otherwise; give all "
                               "of an ID set the same")
    return found


def check(plan: Plan) -> None:
    """Validation sets exist, and are sets that nothing is tested on or trained on.

    Raises:
        OODError: the set, and what it is already.
    """
    for id, tuning in plan.tuning.items():
        roles = {pair: "the ID train set" if pair[1] == "train" else "the ID test set" if pair[0] == id else
                 "an OOD test set" for pair in plan.sets(id)}
        roles |= {(run.outliers, "train"): "outliers that networks are trained on"
                  for run in plan.runs.values() if run.id == id and run.outliers}
        for key, name in [("id", tuning.id), *(("ood", name) for name in tuning.ood)]:
            if name is None:
                continue
            where = f"tuning.{key} of the experiments on '{id}'"
            if name not in plan.datasets:
                raise unknown(where, name, plan.datasets)
            row = plan.datasets[name]
            if "test" not in row.splits:
                raise OODError(f"{where}: dataset '{name}' has no test split (it has: {', '.join(row.splits)})")
            if key == "id" and row.classes != plan.datasets[id].classes:
                raise OODError(f"{where}: '{name}' has other classes than '{id}', or in another order (key classes)")
            for (other, split), role in roles.items():
                if images(row, "test") == images(plan.datasets[other], split):
                    raise OODError(f"{where}: '{name}' consists of the images of '{other}' ({split}), {role}; options "
                                   "are chosen on images that nothing is trained or tested on")
            roles[name, "test"] = "another validation set"
