"""Score files of other tools in the plan: which sets they hold, checked before anything runs."""

from __future__ import annotations

import zipfile
from collections.abc import Container, Mapping
from pathlib import Path
from types import MappingProxyType

from workflow_scripts.config.models import Config, Imported
from workflow_scripts.core.errors import OODError, unknown
from workflow_scripts.work.only import keeps_place
from workflow_scripts.work.plan import Key, Plan, Taken

FORMATS = (".npz", ".csv")


def collect(config: Config, ood: Mapping[str, Mapping[str, str]], runs: Container[Key]) -> dict[Key, Taken]:
    """The entries of a configuration by ID set, network, name and seed.

    Args:
        ood: OOD sets of each ID set and their groups.
        runs: our networks, whose names are not free.

    Raises:
        OODError: a paper, ID set or OOD set that no experiment has; a file that is not there or of another format; a
            name that something else has.
    """
    found: dict[Key, Taken] = {}
    for number, entry in enumerate(config.imported):
        where = f"imported[{number}]"
        papers = {e.paper for e in config.experiments}
        if entry.paper not in papers:
            raise unknown(f"{where}.paper", entry.paper, papers)
        there = {e.id for e in config.experiments if e.paper == entry.paper}
        if entry.id not in there:
            raise unknown(f"{where}.id (ID sets of '{entry.paper}')", entry.id, there)
        taken = _taken(entry, ood[entry.id], where)
        if taken.key in found or taken.key in runs:
            raise OODError(f"{where}.name: {'/'.join(map(str, taken.key))} exists already; give each another name, "
                           "network or seed")
        found[taken.key] = taken
    return found


def of_paper(plan: Plan, paper: str) -> dict[Key, Taken]:
    """The entries that a paper's table shows: those that `only` keeps."""
    return {key: taken for key, taken in plan.imported.items()
            if taken.entry.paper == paper and keeps_place(plan.config.only, key)}


def _taken(entry: Imported, ood: Mapping[str, str], where: str) -> Taken:
    """An entry with its files; ``ood`` are the OOD sets of its ID set and their groups."""
    files = _files(entry, where)
    for name in files:
        if name != entry.id and name not in ood:
            raise unknown(f"{where}.files: set", name, [entry.id, *ood])
    groups: dict[str, tuple[str, ...]] = {}
    for name, group in ood.items():
        if name in files:
            groups[group] = (*groups.get(group, ()), name)
    if not groups:
        raise OODError(f"{where}.files: no OOD set; expected at least one of {', '.join(ood)}")
    return Taken(entry, MappingProxyType(files), MappingProxyType(groups))


def _files(entry: Imported, where: str) -> dict[str, Path]:
    """The file of each set; of one `.npz` for all, its arrays' names are the sets."""
    given = entry.files if isinstance(entry.files, dict) else {"": entry.files}
    for name, text in given.items():
        place, path = f"{where}.files{f'.{name}' if name else ''}", Path(text)
        if not path.is_absolute():
            raise OODError(f"{place}: expected an absolute path, or one beside the configuration file that begins with "
                           f"./, found '{text}'")
        if path.suffix not in FORMATS:
            pickled = path.suffix in (".pkl", ".pickle", ".pt", ".pth")
            hint = "; a pickle can run code and is not read: numpy.savez('faces.npz', scores=...)" if pickled else ""
            raise OODError(f"{place}: expected a file {' or '.join(FORMATS)}, found {path.name}{hint}")
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
