"""What some papers' sections have: reliability figures, and what ran both corrected and as released."""

from __future__ import annotations

from typing import Any

from workflow_scripts.config.fidelity import suffix
from workflow_scripts.core import plugins
from workflow_scripts.work import released
from workflow_scripts.work.plan import Key, Plan, Trained


def headline_runs(plan: Plan, paper: str) -> tuple[str, list[tuple[Trained, list[str]]]]:
    """A paper's headline score, and (network, OOD sets) of what has it."""
    about = plan.about(paper)
    sets: dict[Key, dict[str, None]] = {}
    score = about and about.headline or plan.experiments(paper)[0].scores[0]
    for experiment in plan.experiments(paper):
        for run in plan.runs_of(experiment) if score in experiment.scores else ():
            seen = sets.setdefault(run.key, {})
            seen |= dict.fromkeys(name for names in experiment.ood.values() for name in names)
    return score, [(plan.runs[key], list(names)) for key, names in sets.items()]


def id_task(plan: Plan, paper: str) -> dict[str, Any]:
    """What tables show of the ID task, where it is more than accuracy."""
    about = plan.about(paper)
    return {"id_metrics": ["accuracy", "aurc", "augrc", "ece"]} if about and about.reliability else {}


def countings(plan: Plan, paper: str) -> dict[str, Any]:
    """The rules of counting that a paper's experiments name (`compat`) and that print numbers: its own tables."""
    found = []
    own = id_task(plan, paper).get("id_metrics", ["accuracy"])
    for rule in dict.fromkeys(rule for e in plan.experiments(paper) for rule in e.compat):
        spec = plugins.spec("metrics.rules", plugins.metric_rules()[rule])
        if spec.columns:
            found.append({"rule": rule, "metrics": list(spec.columns), "id_metrics": list(spec.id_columns or own),
                          "says": spec.says})
    return {"countings": found} if found else {}


def tuned(plan: Plan, paper: str) -> dict[str, Any]:
    """Scores of a paper whose options were chosen, each once."""
    found = {name: how for run in plan.reported(paper) for name, how in run.tuned.items()
             if how.base in {score for e in plan.experiments(paper) if e.tuning for score in e.scores}}
    return {"tuned": [{"name": name, **how._asdict()} for name, how in found.items()]} if found else {}


def families(plan: Plan, paper: str) -> dict[str, str]:
    """The family of each score of a paper."""
    scores = {name: score for run in plan.reported(paper) for name, score in run.scores.items()}
    return {name: plugins.spec("scores", score.module).family for name, score in scores.items()}


def listed(plan: Plan, paper: str) -> dict[str, Any]:
    """Test sets of a paper that published lists choose -> images of the list."""
    sets = {name for run in plan.reported(paper) for name, split in plan.sets(run.id) if split == "test"}
    found = {name: of.used().count for name in sorted(sets) if (of := plan.datasets[name].list_of("test"))}
    return {"listed": found} if found else {}


def names_of(plan: Plan, paper: str) -> dict[str, str]:
    """Printed names of what a paper shows, so that a score that only another paper has leaves its tables alone."""
    runs = plan.reported(paper)
    shown = {name for run in runs for name in run.scores} | {name for run in runs for name, _ in plan.sets(run.id)}
    return {name: label for name, label in plan.names.items() if name in shown}


def compared(plan: Plan, paper: str) -> dict[str, Any]:
    """What of a paper ran both corrected and as released: see :mod:`workflow_scripts.reporting.comparison`."""
    trainings = [{"id": run.id, "network": run.network.name, "corrected": corrected.path_name,
                  "released": run.path_name, "defects": [b for b in run.released if b not in corrected.released]}
                 for corrected, run in released.pairs(plan.reported(paper))]
    everywhere = plan.config.fidelity.released
    counted = {rule for e in plan.experiments(paper) for rule in e.compat}
    rules = {"goe": "goe.2g-8"} if "goe.2g-8" in everywhere and "goe" in counted else {}
    sets = {suffix(defects): ", ".join(defects) for id in dict.fromkeys(e.id for e in plan.experiments(paper))
            for defects in plan.otherwise[id]}
    return {"compare": {"trainings": trainings, "rules": rules, "sets": sets}} if trainings or rules or sets else {}
