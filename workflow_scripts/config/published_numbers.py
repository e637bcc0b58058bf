"""Numbers that papers published: the files of ``config/reference``, one per paper.

A file says, independently of any configuration, what stands behind its numbers: the whole recipe of each training, the
options of each score, the sets of each column. What of it may differ and still leave a comparison meaningful is said
here too (`but_for`), not by the user.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import Field, ValidationError, field_validator, model_validator

from workflow_scripts.config.base import Name, Strict, Where
from workflow_scripts.config.recipes import Recipe
from workflow_scripts.core import plugins
from workflow_scripts.core.digest import ROOT
from workflow_scripts.core.errors import OODError, unknown
from workflow_scripts.core.yaml_files import read_yaml

FOLDER = ROOT / "config" / "reference"
MEAN = "mean"
"""The column over the sets beside it."""

Entry = TypeVar("Entry", "Taught", "Column")


class Architecture(Strict):
    """A network of the paper, as a module of `workflow_scripts/models`."""

    model: str
    options: dict[str, Any] = {}


class Taught(Strict):
    """A training of the paper."""

    name: str
    """Name in the source."""
    where: Where = Where()
    """ID sets and networks (of the source) that this entry is for."""
    recipe: Recipe | None = None
    """All of it, as a recipe of a configuration; `parent` names another training of the file, `released` the defects of
    the published network."""
    absent: str = ""
    """Why there is none like it here, instead of a recipe."""
    inferred: str = ""
    """What of the recipe the source does not say, and how it was inferred."""
    but_for: dict[str, dict[str, Any]] = {}
    """Differences that leave a comparison meaningful: how each is called -> the keys of the recipe with their other
    values."""
    apart: str = ""
    """Such a difference that every run here has, since no key removes it."""
    ignore: list[str] = []
    """Keys of the recipe that change no number, e.g. `options.snapshots`."""

    @field_validator("recipe", mode="before")
    @classmethod
    def _nameless(cls, value: Any) -> Any:
        return {**value, "name": "published", "label": ""} if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _either(self) -> Taught:
        if (self.recipe is None) != bool(self.absent):
            raise ValueError(f"training '{self.name}': either recipe or absent expected")
        for words, patch in self.but_for.items():
            try:
                self.other(patch)
            except (OODError, ValidationError) as error:
                raise ValueError(f"but_for.{words}: {error}") from None
        return self

    def other(self, patch: Mapping[str, Any]) -> Recipe:
        """The recipe with other values of some keys.

        Raises:
            OODError: the training has no recipe, or its method has no such option.
        """
        if self.recipe is None:
            raise OODError("a training without a recipe has nothing to differ from")
        recipe = Recipe.model_validate(_merged(self.recipe.model_dump(exclude_unset=True), patch))
        if recipe.method:
            plugins.parse_options("methods", recipe.method, recipe.options, "options")
        return recipe


class Column(Strict):
    """A column of a printed table: one set, or the mean over several."""

    name: str
    """Name in the source."""
    where: Where = Where()
    """ID sets that this entry is for."""
    of: list[Name] = []
    """Datasets here; of several their unweighted mean."""
    absent: str = ""
    """Why there are none, instead of `of`."""
    inferred: str = ""
    """What the source does not say, and how it was inferred."""
    but_for: dict[str, list[Name]] = {}
    """Other sets that leave a comparison meaningful: how that difference is called -> datasets."""

    @model_validator(mode="after")
    def _either(self) -> Column:
        if bool(self.of) == bool(self.absent):
            raise ValueError(f"set '{self.name}': either of or absent expected")
        return self


class Scored(Strict):
    """A score of the paper: a module of `workflow_scripts/scores` and its options, defaults filled in."""

    module: str
    label: str
    options: dict[str, Any] = {}
    but_for: dict[str, dict[str, Any]] = {}
    """Other options that leave a comparison meaningful: how that difference is called -> options."""

    @model_validator(mode="after")
    def _options(self) -> Scored:
        for options in (self.options, *self.but_for.values()):
            try:
                plugins.parse_options("scores", self.module, options, "options")
            except OODError as error:
                raise ValueError(str(error)) from None
        return self


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

    networks: dict[str, Architecture]
    """Name in the source -> network here."""
    trainings: list[Taught]
    sets: list[Column] = []
    tables: list[PublishedTable]

    def training(self, table: PublishedTable, name: str) -> Taught:
        """The training that a table, or the `parent` of another, names.

        Raises:
            OODError: none of that name fits the table, or several do.
        """
        return _fitting(self.trainings, name, table, "trainings")

    def column(self, table: PublishedTable, name: str) -> Column:
        """The column that a table names.

        Raises:
            OODError: none of that name fits the table, or several do.
        """
        return _fitting(self.sets, name, table, "sets")


def _fitting(entries: Sequence[Entry], name: str, table: PublishedTable, key: str) -> Entry:
    named = [entry for entry in entries if entry.name == name]
    if not named:
        raise unknown(f"key {key}", name, {entry.name for entry in entries})
    fitting = [entry for entry in named if entry.where.matches(table.id, table.network)]
    if len(fitting) != 1:
        raise OODError(f"key {key}: '{name}' has {len(fitting)} entries for ID set '{table.id}' and network "
                       f"'{table.network}'; exactly one must fit (key `where`)")
    return fitting[0]


def _merged(given: Any, patch: Any) -> Any:
    """``given`` with the values of ``patch``; mappings are merged key by key."""
    if not (isinstance(given, Mapping) and isinstance(patch, Mapping)):
        return patch
    return {**given, **{key: _merged(given.get(key), value) for key, value in patch.items()}}


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
        for table in reference.tables:
            _check(reference, table)
    except ValidationError as error:
        raise OODError("\n".join(f"{where}: {line}" for line in plugins.explain(error, "", {}))) from None
    except OODError as error:
        raise OODError(f"{where}: {error}") from None
    return reference


def _check(reference: Reference, table: PublishedTable) -> None:
    """Every name of a table is defined.

    Raises:
        OODError: one is not.
    """
    if table.network not in reference.networks:
        raise unknown("key network", table.network, reference.networks)
    for training, rows in table.values.items():
        taught = reference.training(table, training)
        if taught.recipe and taught.recipe.parent:
            reference.training(table, taught.recipe.parent)
        for name in rows:
            if name != MEAN:
                reference.column(table, name)
