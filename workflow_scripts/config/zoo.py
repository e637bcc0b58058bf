"""Published networks by name (``config/zoo.yaml``): each a recipe and an architecture of any configuration.

An experiment whose ``recipes`` are names such as ``zoo/wrn-40-2/cifar10/oe/s1``, or patterns such as
``zoo/wrn-40-2/cifar10/*``, brings its networks itself. Imported while the Snakefile is parsed.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator

from workflow_scripts.config.base import Strict
from workflow_scripts.core import plugins
from workflow_scripts.core.changes import Normalise
from workflow_scripts.core.digest import ROOT
from workflow_scripts.core.errors import OODError, unknown
from workflow_scripts.core.yaml_files import read_yaml

FILE = ROOT / "config" / "zoo.yaml"
PREFIX = "zoo/"
Unknown = Literal["unknown"]


class Architecture(Strict):
    """A network as a module of `workflow_scripts/models`."""

    model: str
    options: dict[str, Any] = {}


class Entry(Strict):
    """One published network; what its publisher does not state is `unknown`."""

    url: Annotated[str, Field(pattern=r"^(https?://\S+|gdrive:[\w-]+)$")] | Unknown
    """Address of the file; `unknown`: it is given out inside an archive, or to be asked for."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{8,64}$")] | Unknown
    """Hash of the file as its publisher states it, or its first digits; `unknown`: the first download is recorded."""
    file: str = ""
    """Where it is looked for below the data root; left out: `zoo/` and its name."""
    network: Architecture
    """Architecture."""
    classes: Annotated[int, Field(gt=1)]
    """Outputs of its head."""
    normalise: Normalise | Unknown
    """Pixel values to network inputs."""
    size: Annotated[int, Field(gt=0)] | Unknown
    """Side of its images."""
    accuracy: Annotated[float, Field(gt=0, le=100)] | Unknown
    """ID test accuracy that its publisher states, in percent."""
    source: str
    """Where it is published or described."""
    about: str = ""
    """How it was trained, where that is stated."""
    key: str = ""
    """Entry of the file that holds the tensors; left out: found."""
    drop: list[str] = []
    """Prefixes of tensors of the file that the network does not have."""
    rename: dict[str, str] = {}
    """Prefixes of tensor names to replace; words that are known to differ go by themselves."""
    fresh: list[str] = []
    """Prefixes of tensors of the network that the file does not have."""
    probe: bool = False
    """Fit the head on the ID train images, since the file has an untrained one."""
    seen: list[str] = []
    """Datasets beside the ID set whose images it was trained or tuned on."""

    @field_validator("network")
    @classmethod
    def _options(cls, value: Architecture) -> Architecture:
        try:
            plugins.parse_options("models", value.model, value.options, "options")
        except OODError as error:
            raise ValueError(str(error)) from None
        return value


class Zoo(Strict):
    """The file."""

    shared: dict[str, Any] = {}
    """What several rows have, as YAML anchors; not read."""
    rows: dict[str, Entry]
    """Networks by name: `architecture/ID set/training`, and where there are several `/seed`."""


@functools.cache
def read() -> dict[str, Entry]:
    """The table, by name: `architecture/ID set/training`, and where there are several `/seed`.

    Raises:
        OODError: an unknown key or a wrong type; one architecture by two names.
    """
    where, table = FILE.relative_to(ROOT).as_posix(), read_yaml(FILE)
    found: dict[str, Entry] = {}
    networks: dict[str, Architecture] = {}
    for name, row in table["rows"].items():
        try:
            found[name] = Entry.model_validate(row)
        except ValidationError as error:
            raise OODError("\n".join(f"{where}: {line}" for line in plugins.explain(error, name, {}))) from None
        architecture = name.partition("/")[0]
        if networks.setdefault(architecture, found[name].network) != found[name].network:
            raise OODError(f"{where}: {name}: another network than the other rows of '{architecture}'; give it a name "
                           "of its own")
    return found


def slug(name: str) -> str:
    """A name as part of paths: ``zoo-wrn-40-2-cifar10-oe-s1``."""
    return f"{PREFIX}{name}".replace("/", "-")


def expanded(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with the recipes and networks of the zoo that its experiments name.

    An experiment becomes one for each architecture.

    Raises:
        OODError: an unknown name, other recipes beside those of the zoo, or ``networks``, which the zoo's rows bring.
    """
    recipes, networks, experiments = {}, {}, []
    for number, experiment in enumerate(raw.get("experiments") or []):
        asked = experiment.get("recipes") if isinstance(experiment, Mapping) else None
        if not isinstance(asked, list) or not any(_of_zoo(name) for name in asked):
            experiments.append(experiment)
            continue
        where = f"experiments[{number}]"
        others = [name for name in asked if not _of_zoo(name)]
        if others or experiment.get("networks"):
            what = (f"recipes: '{others[0]}' is none of the zoo's" if others
                    else "networks: the zoo's recipes bring theirs")
            raise OODError(f"{where}.{what}; recipes of the zoo are in an experiment of their own, without networks")
        by_architecture: dict[str, list[str]] = {}
        for name in _named(asked, f"{where}.recipes"):
            architecture = name.partition("/")[0]
            networks[architecture] = {"name": architecture, **read()[name].network.model_dump()}
            recipes[slug(name)] = _recipe(name, f"{where}.recipes")
            by_architecture.setdefault(architecture, []).append(slug(name))
        experiments += [{**experiment, "networks": [architecture], "recipes": names}
                        for architecture, names in by_architecture.items()]
    if not recipes:
        return dict(raw)
    return {**raw, "experiments": experiments,
            "recipes": [*(raw.get("recipes") or []), *recipes.values()],
            "networks": [*(raw.get("networks") or []), *networks.values()]}


def _of_zoo(name: Any) -> bool:
    return isinstance(name, str) and name.startswith(PREFIX)


def _named(asked: Iterable[str], where: str) -> list[str]:
    """The rows that names and patterns mean, each once.

    Raises:
        OODError: one means none.
    """
    found: dict[str, None] = {}
    for text in asked:
        fitting = [name for name in read() if fnmatchcase(PREFIX + name, text)]
        if not fitting:
            raise unknown(where, text, (PREFIX + name for name in read()))
        found |= dict.fromkeys(fitting)
    return list(found)


def _recipe(name: str, where: str) -> dict[str, Any]:
    """A row as a recipe.

    Raises:
        OODError: its publisher does not state the normalisation.
    """
    row = read()[name]
    if row.normalise == "unknown":
        raise OODError(f"{where}: '{PREFIX}{name}': its publisher ({row.source}) does not state the normalisation; "
                       "give it in a recipe of your own with this checkpoint")
    checkpoint = {"file": row.file or f"zoo/{slug(name)}{_suffix(row.url)}", "classes": row.classes,
                  "url": "" if row.url == "unknown" else row.url,
                  **row.model_dump(include={"key", "drop", "rename", "fresh", "probe", "seen"})}
    if row.sha256 != "unknown":
        checkpoint["sha256"] = row.sha256
    return {"name": slug(name), "label": name, "normalise": row.normalise, "checkpoint": checkpoint}


def _suffix(url: str) -> str:
    """How the file is written, which its name says."""
    return next((suffix for suffix in (".safetensors", ".npz") if url.endswith(suffix)), ".pth")
