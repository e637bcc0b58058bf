"""Archives or folders of image files (JPEG, PNG, ...), with class folders or flat.

Nothing is unpacked to the disk: members are read one by one into memory, so neither a path that leaves the folder nor a
link, device or archive bomb of many files can do harm. Each image is decoded once.
"""

from __future__ import annotations

import contextlib
import lzma
import os
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, MinLen

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.files import sha256
from workflow_scripts.core.fingerprint import Fingerprints
from workflow_scripts.core.sources import shown
from workflow_scripts.core.specs import ReaderSpec
from workflow_scripts.data.decoding import decode
from workflow_scripts.data.reading import Images, raw_files, unlabelled

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".webp", ".tif", ".tiff"}
MEMBER_CAP = 256 * 2**20  # bytes; no single image file is as large


SPEC = ReaderSpec()


@dataclass(frozen=True)
class Options:
    files: str | Annotated[tuple[str, ...], MinLen(1)]
    """Tar archives or folders: a path or glob below the data root, or a list of alternatives."""
    under: str = ""
    """Take only what lies in this folder of the archive or folder, e.g. `images`."""
    labels: Literal["none", "folders"] = "none"
    """`folders`: the first folder below `under` names the class, classes in sorted order; `none`: no labels."""
    order: tuple[str, ...] = ()
    """Names of the class folders in the order of the labels, e.g. of a network's outputs; left out: sorted."""
    allow_corrupt: Annotated[int, Ge(0)] = 0
    """So many images that cannot be decoded are left out and named; more stop the run, which counts them."""


@dataclass(frozen=True)
class _Entry:
    name: str  # path inside the archive or folder
    source: int  # which of the archives or folders
    at: tarfile.TarInfo | Path


def _wanted(name: str, under: str) -> bool:
    path = PurePosixPath(name)
    return (path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
            and (not under or path.is_relative_to(under)))


def _from_folder(folder: Path, source: int, under: str) -> Iterator[_Entry]:
    for here, folders, files in os.walk(folder / under):
        folders.sort()
        for file in files:
            path = Path(here) / file
            name = path.relative_to(folder).as_posix()
            if _wanted(name, under) and path.is_file():
                yield _Entry(name, source, path)


def _from_tar(path: Path, source: int, under: str) -> Iterator[_Entry]:
    with tarfile.open(path) as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            if not member.isreg() or not _wanted(name, under):
                continue  # folders, links and devices are never followed
            if member.size > MEMBER_CAP:
                raise OODError(f"{path}: member {name} claims {member.size:,} bytes, more than any image has")
            yield _Entry(name, source, member)


def _entries(path: Path, source: int, under: str) -> list[_Entry]:
    """The images of one archive or folder, sorted by name."""
    if path.is_dir():
        found = list(_from_folder(path, source, under))
    else:
        try:
            found = list(_from_tar(path, source, under))
        except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
            raise OODError(f"{path}: not a whole tar archive ({error}); it is truncated, corrupt or another format; "
                           "fetch it again") from None
    if not found:
        raise OODError(f"{path}: no image file{f' below {under}' if under else ''}; expected "
                       f"{', '.join(sorted(SUFFIXES))}")
    return sorted(found, key=lambda entry: entry.name)


def _contents(entries: list[_Entry], paths: list[Path], index: np.ndarray) -> Iterator[tuple[int, _Entry, bytes]]:
    """Position in ``index``, entry and bytes of each file, in the order of the archives, which are read forwards."""
    def place(position: int) -> tuple[int, int]:
        entry = entries[index[position]]
        return entry.source, entry.at.offset if isinstance(entry.at, tarfile.TarInfo) else 0

    with contextlib.ExitStack() as stack:
        archives: dict[int, tarfile.TarFile] = {}
        for position in sorted(range(len(index)), key=place):
            entry = entries[index[position]]
            if isinstance(entry.at, Path):
                yield position, entry, entry.at.read_bytes()
                continue
            if entry.source not in archives:
                archives[entry.source] = stack.enter_context(tarfile.open(paths[entry.source]))
            yield position, entry, archives[entry.source].extractfile(entry.at).read()


def _class_of(name: str, under: str, path: Path) -> str:
    parts = PurePosixPath(name).relative_to(under or ".").parts
    if len(parts) < 2:
        raise OODError(f"{path}: {name} lies in no class folder; set labels: none, or `under` to the folder that "
                       "holds the class folders")
    return parts[0]


def read(options: Options, root: Path | None) -> Images:
    """All images, sorted by name within each archive or folder; decoded when blocks are read, each of its own size.

    Raises:
        OODError: no source or no image in it; an archive that is not whole; while blocks are read: more than
            ``allow_corrupt`` images that cannot be decoded, the first ones named.
    """
    paths = raw_files(options.files, root)
    entries, folders, sources = [], [], {}
    under = options.under.strip("/")
    for i, path in enumerate(paths):
        found = _entries(path, i, under)
        entries += found
        if options.labels == "folders":
            folders += [_class_of(entry.name, under, path) for entry in found]
        sources[shown(path, root)] = Fingerprints().text(path) if path.is_dir() else sha256(path)
    classes = tuple(sorted(set(folders)))
    if options.order:
        if sorted(options.order) != list(classes):
            differ = sorted(set(options.order) ^ set(classes)) or ["one that stands twice"]
            raise OODError(f"order: expected the {len(classes)} class folders of {paths[0]}, each once; they differ in "
                           f"{', '.join(differ[:5])}")
        classes = options.order
    number = {name: i for i, name in enumerate(classes)}
    notes: list[str] = []

    def blocks(index: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        corrupt = []
        for position, entry, content in _contents(entries, paths, index):
            try:
                image = decode(content)
            except ValueError as error:
                corrupt.append(f"{entry.name} ({error})")
                continue
            if len(corrupt) <= options.allow_corrupt:  # beyond that, only count on
                yield position, image[None]
        if len(corrupt) > options.allow_corrupt:
            raise OODError(
                f"{len(corrupt)} image(s) cannot be decoded: {'; '.join(corrupt[:5])}"
                f"{'; ...' if len(corrupt) > 5 else ''}. Fetch {', '.join(str(p) for p in paths[:3])} again, or set "
                f"allow_corrupt: {len(corrupt)} in the dataset's options to leave them out")
        if corrupt:
            notes.append(f"left out {len(corrupt)} image(s) that cannot be decoded: {'; '.join(corrupt)}")

    return Images(
        labels=np.array([number[f] for f in folders], np.int64) if folders else unlabelled(len(entries)),
        names=[entry.name for entry in entries],
        classes=classes,
        sources=sources,
        blocks=blocks,
        notes=notes,
    )
