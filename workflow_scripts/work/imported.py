"""Score files of other tools in the plan: which sets they hold, checked before anything runs."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from workflow_scripts.config.models import Imported
from workflow_scripts.core.errors import OODError, unknown

if TYPE_CHECKING:
    from workflow_scripts.work.expand import Plan

FORMATS = (".npz", ".csv")


@dataclass(frozen=True)
class Taken:
    """An entry of `imported` with the file of each of its sets."""

    entry: Imported
    files: dict[str, Path]
    groups: dict[str, list[str]]
    """Its OOD sets by group, as in the experiments on its ID set."""

    @property
    def key(self) -> tuple[str, str, str, int]:
        return self.entry.id, self.entry.network, self.entry.name, self.entry.seed

    @property
    def label(self) -> str:
        return f"{self.entry.label} [imported]"


def collect(plan: Plan) -> dict[tuple[str, str, str, int], Taken]:
    """The entries of a plan by ID set, network, name and seed.

    Raises:
        OODError: a paper, ID set or OOD set that no experiment has; a file that is not there or of another format; a
            name that something else has.
    """
    found: dict[tuple[str, str, str, int], Taken] = {}
    for number, entry in enumerate(plan.config.imported):
        where = f"imported[{number}]"
        papers = {e.paper for e in plan.config.experiments}
        if entry.paper not in papers:
            raise unknown(f"{where}.paper", entry.paper, papers)
        there = {e.id for e in plan.config.experiments if e.paper == entry.paper}
        if entry.id not in there:
            raise unknown(f"{where}.id (ID sets of '{entry.paper}')", entry.id, there)
        files = _files(entry, where)
        novel = plan.ood[entry.id]
        for name in files:
            if name != entry.id and name not in novel:
                raise unknown(f"{where}.files: set", name, [entry.id, *novel])
        groups: dict[str, list[str]] = {}
        for name in novel:
            if name in files:
                groups.setdefault(novel[name], []).append(name)
        if not groups:
            raise OODError(f"{where}.files: no OOD set; expected at least one of {', '.join(novel)}")
        taken = Taken(entry, files, groups)
        if taken.key in found or taken.key in plan.runs:
            raise OODError(f"{where}.name: {'/'.join(map(str, taken.key))} exists already; give each another name, "
                           "network or seed")
        found[taken.key] = taken
    return found


def of_paper(plan: Plan, paper: str) -> dict[tuple[str, str, str, int], Taken]:
    """The entries that a paper's table shows: those that `only` keeps."""
    only = plan.config.only
    return {key: taken for key, taken in plan.imported.items() if taken.entry.paper == paper
            and all(not kept or value in kept for kept, value in zip(
                (only.ids, only.networks, only.seeds), (key[0], key[1], key[3]), strict=True))}


def _files(entry: Imported, where: str) -> dict[str, Path]:
    """The file of each set; of one `.npz` for all, its arrays' names are the sets."""
    given = entry.files if isinstance(entry.files, dict) else {"": entry.files}
    for name, text in given.items():
        place, path = f"{where}.files{f'.{name}' if name else ''}", Path(text)
        if not path.is_absolute():
            raise OODError(f"{place}: expected an absolute path, or one beside the configuration file that begins with "
                           f"./, found '{text}'")
        if path.suffix not in FORMATS:
            raise OODError(f"{place}: expected a file {' or '.join(FORMATS)}, found {path.name}")
        if not path.is_file():
            raise OODError(f"{place}: there is no file {path}")
    if isinstance(entry.files, dict):
        return {name: Path(text) for name, text in given.items()}
    path = Path(entry.files)
    if path.suffix != ".npz":
        raise OODError(f"{where}.files: one file for all sets is an .npz with an array for each; for {path.name} name "
                       "the set it is of, e.g. files: {svhn: ./svhn.csv}")
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy"): path for name in archive.namelist()}
    except zipfile.BadZipFile:
        raise OODError(f"{where}.files: {path} is no .npz file, or cut off; write it again with numpy.savez") from None
