"""The table of raw files (``config/sources.yaml``): where each comes from and how it is known to be the right one.

Imported while the Snakefile is parsed, so it needs pydantic, yaml and the standard library only.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError, model_validator

from workflow_scripts.core.errors import OODError, unknown
from workflow_scripts.core.files import CHECKSUM
from workflow_scripts.core.plugins import explain
from workflow_scripts.core.sources import instructions
from workflow_scripts.core.yaml_files import read_yaml

_NAME = TypeAdapter(Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")])
Checksum = Annotated[str, StringConstraints(pattern=CHECKSUM)]
Address = Annotated[str, StringConstraints(pattern=r"^(https?://[^\s]+|file://[^\s]+|gdrive:[\w-]+|[~/].*|[A-Za-z]:.*)$")]


class Source(BaseModel):
    """One raw file."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    about: str = ""
    """What the file holds."""
    urls: list[Address] = []
    """Where to fetch it, in order of preference: http(s):// or file:// URLs, absolute paths of this machine (used in
    place), `gdrive:ID` for Google Drive."""
    checksum: list[Checksum] = []
    """Published checksums, `md5:...`, `sha256:...`, `git:...` (the id of the file's blob in a Git repository) or, of a
    list of images, `lines:...` and `paths:...` (sha256 of its sorted lines and paths), all of which must hold.
    None: the first download is recorded in a lock file that later ones are compared with."""
    checksum_from: str = ""
    """Who publishes the checksums."""
    size: Annotated[int, Field(gt=0)] | None = None
    """Bytes."""
    licence: str = ""
    """Terms of use."""
    citation: str = ""
    """Whom to cite."""
    by_hand: bool = False
    """The file is never downloaded; the user brings it."""
    reason: str = ""
    """Why it must be brought by hand."""
    where: str = ""
    """Where the user gets it (by hand, or when the addresses fail)."""
    substitutes: list[str] = []
    """What may be used in its place."""
    name: str = ""
    """The row's key, the file's name; set when the table is read."""

    @model_validator(mode="after")
    def _whole(self) -> Source:
        if self.by_hand and not (self.reason and self.where and not self.urls):
            raise ValueError("a file brought by hand has a reason and a where, and no urls")
        if not self.by_hand and not self.urls:
            raise ValueError("at least one of urls expected, or by_hand: true with reason and where")
        if bool(self.checksum) != bool(self.checksum_from):
            raise ValueError("checksum and checksum_from are given together: who publishes the checksum?")
        return self

    def identity(self) -> dict[str, Any]:
        """What makes it another file when it changes, plain JSON. Addresses do not: a file that is there stays."""
        return self.model_dump(include={"name", "checksum", "size"})

    def instructions(self, target: str | os.PathLike) -> str:
        """How to bring the file by hand: path, size, checksums, where from, why, what else would do."""
        return instructions(self, target)


def load_sources(path: str | os.PathLike, extra: Mapping[str, Any] | None = None) -> dict[str, Source]:
    """Read and check the table.

    Args:
        path: the YAML file, a mapping from file name to row.
        extra: further rows; they replace rows of the same name.

    Raises:
        OODError: one line per problem: place, what was found, what is allowed, the nearest match.
    """
    path = Path(path)
    table = read_yaml(path, "table of raw files")
    sources, problems = {}, []
    for where, rows in ((path.name, table), ("sources", extra or {})):
        if not isinstance(rows, Mapping):
            raise OODError(f"{where}: a mapping from file names to rows expected, found {type(rows).__name__}")
        for name, row in rows.items():
            try:
                sources[name] = parse_source(f"{where}: {name}", {**row, "name": name} if isinstance(row, Mapping)
                                             and "name" not in row else None)
            except OODError as error:
                problems.append(str(error))
    if problems:
        raise OODError("\n".join(problems))
    return sources


def parse_source(where: str, row: Any) -> Source:
    """One checked row, its name included; ``where`` names the place in errors.

    Raises:
        OODError: one line per problem.
    """
    if not isinstance(row, Mapping) or "name" not in row:
        raise OODError(f"{where}: a row is a mapping with urls, checksum, ... (its name is its key)")
    try:
        _NAME.validate_python(row["name"])
    except ValidationError:
        raise OODError(f"{where}: a file name of letters, digits, '.', '_', '-' expected, without a folder") from None
    try:
        return Source.model_validate(row)
    except ValidationError as error:
        allowed = [key for key in Source.model_fields if key != "name"]
        raise OODError("\n".join(explain(error, where, {(): allowed}))) from None


def to_place(sources: Mapping[str, Source], names: Iterable[str], folder: str | os.PathLike) -> str:
    """The list of files a user must bring, one line each; empty when all of ``names`` lie in ``folder``.

    For ``offline: true`` call it with all files of the run, otherwise with those that are ``by_hand``.

    Raises:
        OODError: a name the table does not have.
    """
    lines = []
    for name in names:
        if name not in sources:
            raise unknown("raw file", name, sources)
        target = Path(folder) / name
        if not target.exists():
            lines.append(f"  {sources[name].instructions(target)}")
    return "\n".join(lines)
