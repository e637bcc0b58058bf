"""Our runs that published numbers (:mod:`workflow_scripts.config.published_numbers`) may be held against.

A number is comparable where ID set, network, training, epochs, score and OOD sets are those of a run of that paper;
else the first of these that no run has is the reason it is not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from workflow_scripts.config.published_numbers import PublishedTable, Reference, read
from workflow_scripts.core import plugins
from workflow_scripts.work.plan import Plan, Trained

SMALL = "small run"
MEAN = "mean"


def published(plan: Plan, paper: str) -> dict[str, Any]:
    """A paper's numbers for :mod:`workflow_scripts.reporting.published`, each with our run or why there is none."""
    reference = read(paper)
    if reference is None:
        return {}
    small = plan.config.small or plan.config.limit.steps or plan.config.limit.images
    tables = []
    for table in reference.tables:
        rows = []
        for training, numbers in table.values.items():
            run, score, because = (None, "", SMALL) if small else _ours(plan, paper, reference, table, training)
            named = {name: reference.sets.get(name) for name in numbers if name != MEAN}
            for name, values in numbers.items():
                sets = list(named.values()) if name == MEAN else [named[name]]
                row: dict[str, Any] = {"training": training, "sets": name, "values": values}
                if run is not None:
                    row["ours"] = {"id": run.id, "network": run.network.name, "recipe": run.path_name, "score": score}
                    scored = plan.ood[run.id]
                    absent = [name for name in sets if name is not None and name not in scored]
                    if None in sets:
                        row["because_sets"] = "its OOD sets are not stated"
                    elif absent:
                        row["because_sets"] = f"not scored here: {', '.join(absent)}"
                    else:
                        row["datasets"] = sets
                rows.append(row | ({"because": because} if because else {}))
        tables.append(table.model_dump(include={"source", "verified", "id", "network", "metrics"})
                      | {"score": table.score.label, "rows": rows})
    return {"published": tables}


def _ours(plan: Plan, paper: str, reference: Reference, table: PublishedTable,
          training: str) -> tuple[Trained | None, str, str]:
    """The run that a training of a table is, the name of its score, and why there is none."""
    network, wanted, about = reference.networks[table.network], reference.trainings[training], plan.about(paper)
    if network is None:
        return None, "", "no such network here"
    if not wanted.method:
        return None, "", "no such training here"
    if wanted.epochs is None:
        return None, "", "its epochs are not stated"
    architecture = network.model, _options("models", network.model, network.options)

    def scores(run: Trained) -> list[str]:
        """Headline first: a source that does not state an option leaves several."""
        found = [name for name, s in run.scores.items() if s.module == table.score.module and not s.tune
                 and _within(table.score.options, "scores", s.module, s.options)]
        return sorted(found, key=lambda name: name != (about.headline if about else ""))

    def same_network(run: Trained) -> bool:
        given = run.network
        return (given.model, _options("models", given.model, given.options)) == architecture

    checks: list[tuple[str, Callable[[Trained], bool]]] = [
        (f"no run with ID set {table.id}", lambda run: run.id == table.id),
        ("another network", same_network),
        ("another training", lambda run: run.recipe.method == wanted.method and not run.released and not
         run.recipe.checkpoint and _within(wanted.options, "methods", wanted.method, run.recipe.options)),
        ("another number of epochs", lambda run: run.recipe.training is not None and
         run.recipe.training.epochs == wanted.epochs),
        ("another score", lambda run: bool(scores(run)))]
    left = plan.reported(paper)
    for reason, check in checks:
        left = [run for run in left if check(run)]
        if not left:
            return None, "", reason
    return left[0], scores(left[0])[0], ""


def _within(wanted: dict[str, Any], package: str, module: str, given: dict[str, Any]) -> bool:
    """Whether the options, defaults filled in, are those wanted."""
    return _options(package, module, given) == _options(package, module, {**given, **wanted})


def _options(package: str, module: str, given: dict[str, Any]) -> Any:
    """The options of a plugin, defaults filled in; equal where they are the same."""
    return plugins.parse_options(package, module, given, f"{package}.{module}")
