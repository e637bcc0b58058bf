"""The file ``config/published_checks.yaml``: published numbers that are computed again, and from what."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from workflow_scripts.config.base import Name, Strict
from workflow_scripts.config.raw import Source, load_sources
from workflow_scripts.core import plugins
from workflow_scripts.core.errors import OODError, nearest, unknown
from workflow_scripts.core.yaml_files import read_yaml

PACKAGE = "agreement"


class CheckFile(Strict):
    """A file that a check reads."""

    find: Annotated[list[str], Field(min_length=1)]
    """Paths or globs below the data root; the first that is there is read."""
    archive: str = ""
    """Raw file that has it, where none is there: a row of `sources` here or of `config/sources.yaml`."""
    gives: list[str] = []
    """For a file that nothing is downloaded for: the numbers that are left out where none is there, unless another file
    of the check is taken from the same `archive`."""

    @model_validator(mode="after")
    def _some(self) -> CheckFile:
        if not self.archive and not self.gives:
            raise ValueError("archive or gives expected: what is downloaded where no file is there, or the numbers "
                             "that are then left out")
        return self


class PublishedCheck(Strict):
    """Printed numbers of one source."""

    name: Name
    """A module of `workflow_scripts/agreement`."""
    title: str
    """Its heading."""
    source: str
    """Where the numbers are printed."""
    files: dict[str, CheckFile]
    """What the module reads."""
    printed: Annotated[dict[str, str], Field(min_length=1)]
    """Quantity, as the module names it -> the printed number."""
    proves: str
    """What an agreement shows."""
    leaves_open: str
    """What it does not show."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the draws that the source made without one."""

    def left_out(self) -> dict[str, list[str]]:
        """Files that nothing is downloaded for -> the numbers that need them."""
        return {role: file.gives for role, file in self.files.items() if file.gives}

    def downloads(self, lacking: Iterable[str]) -> dict[str, str]:
        """The raw files that are downloaded for files that are not below the data root; ``lacking``: their roles."""
        archives = {role: self.files[role].archive for role in lacking if self.files[role].archive}
        needed = {archive for role, archive in archives.items() if not self.files[role].gives}
        return {role: archive for role, archive in archives.items() if archive in needed}


class Unchecked(Strict):
    """Columns of a paper's tables that no check covers."""

    paper: str
    columns: str
    """Which."""
    lacks: str
    """What is missing for a check."""


class Exactness(Strict):
    """How far the images of a copy that was tested with are the official ones."""

    images: str
    equal: str
    """What is bit-equal to the official files, and how that is known."""
    differs: str
    """What is not."""


class PublishedChecks(Strict):
    """The whole file."""

    sources: dict[str, Any] = {}
    """Raw files beside those of `config/sources.yaml`; the same keys."""
    checks: Annotated[list[PublishedCheck], Field(min_length=1)]
    """The checks, in the order of the page."""
    unchecked: list[Unchecked] = []
    """Columns without a check, of the papers that are reproduced here."""
    exactness: list[Exactness] = []
    """The copies of image sets that the numbers of docs/truth.md were computed from."""


@functools.lru_cache(maxsize=4)
def read(path: Path) -> PublishedChecks:
    """The file alone.

    Raises:
        OODError: an unknown key or a wrong type, one line each.
    """
    try:
        return PublishedChecks.model_validate(read_yaml(path, "table of published numbers"))
    except ValidationError as error:
        raise OODError("\n".join(plugins.explain(error, path.name))) from None


@functools.lru_cache(maxsize=4)
def load(path: Path, sources: Path) -> tuple[dict[str, PublishedCheck], dict[str, Source]]:
    """Checks by name, and the raw files that they name.

    Args:
        path: ``config/published_checks.yaml``.
        sources: ``config/sources.yaml``.

    Raises:
        OODError: a key, a module, a file or a raw file that is not known; one line each.
    """
    given = read(path)
    table = load_sources(sources, given.sources)
    for check in given.checks:
        if check.name not in plugins.names(PACKAGE):
            raise unknown(f"{path.name}: check", check.name, plugins.names(PACKAGE))
        wanted = plugins.spec(PACKAGE, check.name).files
        for name in sorted(wanted ^ check.files.keys()):
            problem = "is not read by it" if name in check.files else "is missing"
            raise OODError(f"{path.name}: check '{check.name}', files: '{name}' {problem}{nearest(name, wanted)}")
        for role, file in check.files.items():
            for name in file.gives:
                if name not in check.printed:
                    raise unknown(f"{path.name}: check '{check.name}', files.{role}.gives", name, check.printed)
            if file.archive and file.archive not in table:
                raise unknown(f"{path.name}: check '{check.name}', files.{role}.archive", file.archive, table)
    return {check.name: check for check in given.checks}, table
