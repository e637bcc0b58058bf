"""Our runs that published numbers (:mod:`workflow_scripts.config.published_numbers`) may be held against.

A run compares where all that stands behind a number is what the source declares: ID set, network, every key of the
training, score, images. Each run that does has rows of its own, which carry the words of declared differences that are
left. Where none does, the reason names the keys in which the nearest differs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from workflow_scripts.config.published_numbers import MEAN, Column, PublishedTable, Reference, Taught, read
from workflow_scripts.work import likeness
from workflow_scripts.work.likeness import Likeness
from workflow_scripts.work.plan import Plan, Trained

SMALL = "small run"


class Match(NamedTuple):
    """A run of ours that a training of a table is held against, by one of its scores."""

    run: Trained
    score: str
    but_for: tuple[str, ...]


class Images(NamedTuple):
    """The sets of ours behind a column."""

    datasets: list[str]
    but_for: tuple[str, ...] = ()
    inferred: tuple[str, ...] = ()
    because: str = ""
    """Why there are none."""


def published(plan: Plan, paper: str) -> dict[str, Any]:
    """A paper's numbers for :mod:`workflow_scripts.reporting.published`, each with our runs or why there is none."""
    reference = read(paper)
    if reference is None:
        return {}
    tables = [table.model_dump(include={"source", "verified", "id", "network", "metrics"})
              | {"score": table.score.label, "rows": [
                  row for training in table.values for row in _rows(plan, paper, reference, table, training)]}
              for table in reference.tables]
    return {"published": tables}


def compared_sets(plan: Plan, paper: str) -> dict[str, int]:
    """ID sets whose networks published numbers are held against -> train images of the complete set, where known."""
    rows = [row for table in published(plan, paper).get("published", []) for row in table["rows"]]
    counts = {id: plan.datasets[id].counts.get("train") for id in dict.fromkeys(
        row["ours"]["id"] for row in rows if "ours" in row)}
    return {id: count for id, count in counts.items() if count}


def _rows(plan: Plan, paper: str, reference: Reference, table: PublishedTable, training: str) -> list[dict[str, Any]]:
    """The numbers of one training of a table, once for each run that they are held against."""
    taught, numbers = reference.training(table, training), table.values[training]
    found, because = _ours(plan, paper, reference, table, taught)
    if not found:
        return [{"training": training, "sets": name, "values": values, "because": because}
                for name, values in numbers.items()]
    columns = {name: reference.column(table, name) for name in numbers if name != MEAN}
    rows = []
    for match in found:
        run = match.run
        each = {name: _images(plan, run, column) for name, column in columns.items()}
        for name, values in numbers.items():
            images = _mean(each.values()) if name == MEAN else each[name]
            rows.append({
                "training": training, "sets": name, "values": values, "but_for": list(match.but_for),
                "inferred": [taught.inferred] if taught.inferred else [],
                "ours": {"id": run.id, "network": run.network.name, "recipe": run.path_name, "score": match.score},
                "datasets": images.datasets or None, "because_sets": images.because,
                "but_for_sets": list(images.but_for), "inferred_sets": list(images.inferred),
                "counts": {name: count for name in (run.id, *images.datasets)
                           if (count := plan.datasets[name].counts.get("test"))}})
    return rows


def _images(plan: Plan, run: Trained, column: Column) -> Images:
    """The sets of a column, or declared others, that a run is scored on."""
    if column.absent:
        return Images([], because=column.absent)
    inferred = (column.inferred,) if column.inferred else ()
    scored = plan.ood[run.id]
    for but_for, names in (((), column.of), *(((words,), other) for words, other in column.but_for.items())):
        if all(name in scored for name in names):
            return Images(names, but_for, inferred, _other_images(plan, names))
    lacking = [[name for name in names if name not in scored] for names in (column.of, *column.but_for.values())]
    lacking.sort(key=len)
    return Images([], because=f"not scored here: {', '.join(lacking[0])}")


def _mean(each: Iterable[Images]) -> Images:
    """All sets of several columns, or the first reason why there are none."""
    each = list(each)
    if because := next((images.because for images in each if images.because), ""):
        return Images([], because=because)
    return Images([name for images in each for name in images.datasets],
                  tuple(dict.fromkeys(words for images in each for words in images.but_for)),
                  tuple(dict.fromkeys(words for images in each for words in images.inferred)))


def _ours(plan: Plan, paper: str, reference: Reference, table: PublishedTable,
          taught: Taught) -> tuple[list[Match], str]:
    """The runs that a training of a table is held against; where there is none, why."""
    if because := _cut(plan) or taught.absent:
        return [], because
    runs = list({run.key[:3]: run for run in plan.reported(paper) if run.id == table.id}.values())
    if not runs:
        return [], f"no run with ID set {table.id}"
    theirs = reference.networks[table.network]
    architecture = likeness.architecture(theirs.model, theirs.options)
    networks = {run.network.name: likeness.compare(likeness.network(run.network), architecture) for run in runs}
    runs = [run for run in runs if not networks[run.network.name].differing]
    if not runs:
        return [], _nearest("network", networks)
    method = taught.recipe.method if taught.recipe else ""
    runs = [run for run in runs if run.recipe.method == method]
    if not runs:
        return [], f"no training by method {method}"
    trainings = {run.path_name: _training(plan, reference, table, taught, run) for run in runs}
    runs = [run for run in runs if not trainings[run.path_name].differing]
    if not runs:
        return [], _nearest("training", trainings)
    found: list[Match] = []
    reasons = []
    for run in runs:
        scores = _scores(table, run)
        alike = [name for name, like in scores.items() if not like.differing]
        because = _other_images(plan, [run.id, *([run.outliers] if run.outliers else [])])
        if alike and not because:
            found += [Match(run, name, trainings[run.path_name].but_for + scores[name].but_for) for name in alike]
        else:
            reasons.append(because or _nearest("score", scores))
    return found, "" if found else reasons[0]


def _cut(plan: Plan) -> str:
    """What of the whole configuration makes its numbers others than any paper's."""
    config = plan.config
    if config.small:
        return SMALL
    limits = [f"limit.{key} is {value}" for key, value in config.limit.model_dump().items() if value]
    if config.features.precision != "float32":
        limits.append(f"features.precision is {config.features.precision}")
    return "; ".join(limits)


def _training(plan: Plan, reference: Reference, table: PublishedTable, taught: Taught, run: Trained) -> Likeness:
    """A run's training against that of the source, each with what it starts from."""
    assert taught.recipe is not None  # _ours: it is not absent
    alternatives = {words: likeness.recipe(other, other.released)
                    for words, other in ((words, taught.other(patch)) for words, patch in taught.but_for.items())}
    like = likeness.compare(likeness.recipe(run.recipe, run.released),
                            likeness.recipe(taught.recipe, taught.recipe.released), alternatives, taught.ignore)
    if taught.apart:
        like = like._replace(but_for=(*like.but_for, taught.apart))
    start = plan.sibling(run, run.parent) if run.parent else None
    named = reference.training(table, taught.recipe.parent) if taught.recipe.parent else None
    if start and named:
        before = _training(plan, reference, table, named, start)
        return Likeness(like.differing + tuple(f"parent: {phrase}" for phrase in before.differing),
                        like.but_for + before.but_for)
    if start or named:
        ours, theirs = start.path_name if start else "nothing", named.name if named else "nothing"
        return Likeness((*like.differing, f"parent is {ours}, published with {theirs}"), like.but_for)
    return like


def _scores(table: PublishedTable, run: Trained) -> dict[str, Likeness]:
    """The scores of a run by a table's module, against the table's options."""
    wanted = table.score
    theirs = likeness.score(wanted.module, wanted.options)
    alternatives = {words: likeness.score(wanted.module, options) for words, options in wanted.but_for.items()}
    return {name: likeness.compare(likeness.score(score.module, score.options), theirs, alternatives)
            for name, score in run.scores.items() if score.module == wanted.module and not score.tune}


def _other_images(plan: Plan, names: Iterable[str]) -> str:
    """Keys in which the configuration's own row of a dataset makes other images of it than the table's."""
    rows = likeness.shipped() if plan.config.datasets else {}
    for name in names:
        if name in plan.config.datasets and name in rows:
            ours, theirs = (likeness.dataset(row) for row in (plan.datasets[name], rows[name]))
            if reason := likeness.compare(ours, theirs).reason:
                return f"dataset {name}: {reason}"
    return ""


def _nearest(kind: str, likes: dict[str, Likeness]) -> str:
    """Why the one with the fewest differing keys does not compare."""
    if not likes:
        return f"another {kind}"
    name = min(likes, key=lambda name: len(likes[name].differing))
    return f"{kind} {name}: {likes[name].reason}"
