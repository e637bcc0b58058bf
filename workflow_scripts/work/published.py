"""Numbers that papers published (``config/reference``, a file per paper), and our runs they may be held against.

A number is comparable where ID set, network, training, epochs, score and OOD sets are those of a run of that paper;
else the first of these that no run has is the reason it is not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, ValidationError, model_validator

from workflow_scripts.config.base import Name, Strict
from workflow_scripts.core import plugins
from workflow_scripts.core.digest import ROOT
from workflow_scripts.core.errors import OODError, unknown
from workflow_scripts.core.files import read_yaml
from workflow_scripts.wiring import sections

if TYPE_CHECKING:
    from workflow_scripts.work.expand import Plan, Trained

FOLDER = ROOT / "config" / "reference"
SMALL = "small run"
MEAN = "mean"


class Architecture(Strict):
    """A network of the paper, as a module of `workflow_scripts/models`."""

    model: str
    options: dict[str, Any] = {}


class Taught(Strict):
    """A training of the paper; without `method` there is none like it here, without `epochs` they are not stated."""

    method: str = ""
    options: dict[str, Any] = {}
    """Those that tell it from other trainings by this method."""
    epochs: int | None = None


class Scored(Strict):
    """A score of the paper: a module of `workflow_scripts/scores` and the options that the source states."""

    module: str
    label: str
    options: dict[str, Any] = {}


class PublishedTable(Strict):
    """Numbers from one source, in the unit of our tables (percent; AURC times 1000)."""

    source: str
    verified: bool
    id: Name
    network: str
    score: Scored
    metrics: Annotated[list[str], Field(min_length=1)]
    values: dict[str, dict[str, list[float]]]
    """Training -> set (or `mean`, over the sets beside it) -> a number for each of `metrics`."""

    @model_validator(mode="after")
    def _complete(self) -> PublishedTable:
        for training, rows in self.values.items():
            for name, numbers in rows.items():
                if len(numbers) != len(self.metrics):
                    raise ValueError(f"values.{training}.{name}: {len(self.metrics)} numbers expected, one for each of "
                                     f"metrics, found {len(numbers)}")
        return self


class Reference(Strict):
    """A file of `config/reference`."""

    networks: dict[str, Architecture | None]
    """Name in the source -> network here; left empty: there is none like it."""
    trainings: dict[str, Taught]
    sets: dict[str, Name | None]
    """Name in the source -> dataset here; left empty: the source does not say which images."""
    tables: list[PublishedTable]


def read(paper: str) -> Reference | None:
    """The numbers of a paper; ``None`` where no file has any.

    Raises:
        OODError: the file has an unknown key, a wrong type or a name that it does not define.
    """
    path = FOLDER / f"{paper}.yaml"
    if not path.is_file():
        return None
    where = path.relative_to(ROOT)
    try:
        reference = Reference.model_validate(read_yaml(path))
    except ValidationError as error:
        raise OODError("\n".join(f"{where}: {line}" for line in plugins.explain(error, "", {}))) from None
    for table in reference.tables:
        if table.network not in reference.networks:
            raise unknown(f"{where}, key network", table.network, reference.networks)
        for training in table.values:
            if training not in reference.trainings:
                raise unknown(f"{where}, key values", training, reference.trainings)
    return reference


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
                    if None not in sets and all(s in scored for s in sets):
                        row["datasets"] = sets
                    else:
                        row["because_sets"] = ("its OOD sets are not stated" if None in sets else
                                               f"not scored here: {', '.join(s for s in sets if s not in scored)}")
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
    architecture = network.model, sections.options("models", network.model, network.options)

    def scores(run: Trained) -> list[str]:
        """Headline first: a source that does not state an option leaves several."""
        found = [name for name, s in run.scores.items() if s.module == table.score.module and not s.choose
                 and _within(table.score.options, "scores", s.module, s.options)]
        return sorted(found, key=lambda name: name != (about.headline if about else ""))

    def same_network(run: Trained) -> bool:
        given = run.network
        return (given.model, sections.options("models", given.model, given.options)) == architecture

    checks: list[tuple[str, Callable[[Trained], bool]]] = [
        (f"no run with ID set {table.id}", lambda run: run.id == table.id),
        ("another network", same_network),
        ("another training", lambda run: run.recipe.method == wanted.method and not run.released and not
         run.recipe.checkpoint and _within(wanted.options, "methods", wanted.method, run.recipe.options)),
        ("another number of epochs", lambda run: run.recipe.training.epochs == wanted.epochs),
        ("another score", lambda run: bool(scores(run)))]
    left = plan.reported(paper)
    for reason, check in checks:
        left = [run for run in left if check(run)]
        if not left:
            return None, "", reason
    return left[0], scores(left[0])[0], ""


def _within(wanted: dict[str, Any], package: str, module: str, given: dict[str, Any]) -> bool:
    """Whether the options, defaults filled in, are those wanted."""
    return sections.options(package, module, given) == sections.options(package, module, {**given, **wanted})
