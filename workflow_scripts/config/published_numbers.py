"""Numbers that papers published: the files of ``config/reference``, one per paper."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from workflow_scripts.config.base import Name, Strict
from workflow_scripts.core import plugins
from workflow_scripts.core.digest import ROOT
from workflow_scripts.core.errors import OODError, unknown
from workflow_scripts.core.files import read_yaml

FOLDER = ROOT / "config" / "reference"


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
