"""The lists of images that make up benchmarks (``config/imglists.yaml``): how each is known, where it is fetched.

Imported while the Snakefile is parsed, so it needs pydantic, yaml and the standard library only.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, StringConstraints, ValidationError, model_validator

from workflow_scripts.config.base import Strict
from workflow_scripts.config.raw import Source
from workflow_scripts.core import plugins
from workflow_scripts.core.digest import ROOT
from workflow_scripts.core.errors import OODError, unknown
from workflow_scripts.core.sources import locate
from workflow_scripts.core.yaml_files import read_yaml

FILE = ROOT / "config" / "imglists.yaml"
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class ImageList(Strict):
    """One list: a text of lines `path label`."""

    count: Annotated[int, Field(gt=0)]
    """Images."""
    paths: Sha256
    """Of the sorted paths."""
    lines: Sha256
    """Of the sorted lines."""
    mirrors: Annotated[list[str], Field(min_length=1)]
    """Which of the mirrors have it, in order of preference."""


class ImageLists(Strict):
    """The file."""

    find: list[str]
    """Folders, or archives of such a folder, below the data root that hold lists as `{name}.txt`."""
    mirrors: dict[str, str]
    """Address of each public copy of that folder."""
    lists: dict[str, ImageList]
    """Lists by name, `{benchmark}/{list}`."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        for name, row in self.lists.items():
            for mirror in row.mirrors:
                if mirror not in self.mirrors:
                    raise ValueError(str(unknown(f"lists.{name}.mirrors", mirror, self.mirrors)))
        return self

    def get(self, name: str, where: str) -> ImageList:
        """A list by its name.

        Raises:
            OODError: there is none; ``where`` begins the message.
        """
        if name not in self.lists:
            raise unknown(where, name, self.lists)
        return self.lists[name]

    def source(self, name: str) -> Source:
        """The list as a raw file to fetch."""
        row = self.lists[name]
        return Source(
            name=file_name(name), about=f"OpenOOD v1.5, image list {name}",
            urls=[f"{self.mirrors[mirror]}/{name}.txt" for mirror in row.mirrors],
            checksum=[f"lines:{row.lines}", f"paths:{row.paths}"], checksum_from="config/imglists.yaml",
            licence="MIT", citation="Zhang et al., OpenOOD v1.5, DMLR 2024")

    def there(self, name: str, root: Path | None) -> Path | None:
        """The list below the data root, or an archive that may hold it; ``None`` where it is to be fetched."""
        for place in self.find:
            found = locate(place, root)
            path = found[0] / f"{name}.txt" if found and found[0].is_dir() else found[0] if found else None
            if path and path.is_file():
                return path
        return None


def file_name(name: str) -> str:
    """What a fetched list is called: ``openood-cifar10-test_tin.txt``."""
    return f"openood-{name.replace('/', '-')}.txt"


@functools.cache
def read() -> ImageLists:
    """The checked file.

    Raises:
        OODError: an unknown key, a wrong type or a mirror that is not defined.
    """
    try:
        return ImageLists.model_validate(read_yaml(FILE))
    except ValidationError as error:
        raise OODError("\n".join(plugins.explain(error, FILE.relative_to(ROOT).as_posix(), {}))) from None


def sources() -> dict[str, Source]:
    """All lists as raw files, by the name of the file."""
    return {file_name(name): read().source(name) for name in read().lists}
