"""Folders and archives as trees of folders, files and links; what is an image is said by ``listing``.

Nothing is unpacked: a member is found by the place of its bytes, and its name is never used as a path to write to. A
link of an archive leads to what lies inside it and never out of it.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeAlias

from workflow_scripts.core.errors import OODError
from workflow_scripts.data.archives.unpack import safe_name
from workflow_scripts.data.tally import Tally

SYSTEM = {"__macosx", "@eadir", "@recycle", "#recycle", "#snapshot", "$recycle.bin", "recycler", "lost+found",
          "system volume information", "__pycache__"}
"""Folders, in small letters, that are none of a user's data: of macOS, Synology, QNAP, Windows, Linux, Python."""
NOTHING, OUT, IRREGULAR = "links to nothing", "links out of the archive", "devices, pipes and sockets"
Tree: TypeAlias = dict[str, Any]
_HOPS = 40  # links on the way to a file, as many as Linux follows
_LOCAL_HEADER = struct.Struct("<26xHH")  # of a zip member: lengths of its name and extra field
_BROKEN = (tarfile.TarError, zipfile.BadZipFile, EOFError, struct.error, zlib.error, lzma.LZMAError, OSError)
_OPENERS: dict[bytes, Callable[[Path], IO[bytes]]] = {b"\x1f\x8b": gzip.GzipFile, b"BZh": bz2.BZ2File,
                                                       b"\xfd7zXZ\x00": lzma.LZMAFile}


@dataclass(frozen=True, slots=True)
class Found:
    """One file of a source: its name, and where its bytes lie (a path, or offset and stored size in the archive)."""

    name: str
    size: int
    offset: int = -1
    stored: int = -1
    deflated: bool = False
    crc: int = -1
    """Checksum (CRC-32) of its content, where the archive states it."""


def reason(name: str) -> str:
    """Why a file or folder of this name is none of a user's images by its name alone; empty where it may be one."""
    if name.startswith("."):
        return "hidden files and folders"
    return "folders of the system" if name.lower() in SYSTEM else ""


def tree_of(path: Path, left_out: Tally) -> Folder | Members:
    """A folder or an archive as a tree.

    Args:
        left_out: counts members that are no part of it.

    Raises:
        OODError: an archive that is not whole, or that has a member outside of it.
    """
    return Folder(path) if path.is_dir() else _members(path, left_out)


def _members(path: Path, left_out: Tally) -> Members:
    """An archive as a tree."""
    members = Members(path, left_out)
    try:
        with open(path, "rb") as file:
            if zipfile.is_zipfile(file) and not tarfile.is_tarfile(path):
                _read_zip(file, members)
                return members
        with stream(path) as content:
            _read_tar(content, members, members.root, 0, sys.maxsize if is_compressed(path) else path.stat().st_size)
    except _BROKEN as error:
        if getattr(error, "errno", None):
            raise OODError(f"{path}: cannot be read ({error})") from None
        raise OODError(f"{path}: not a whole tar or zip archive ({error}); it is truncated, corrupt or another format; "
                       "fetch it again") from None
    return members


# ---- folders ---------------------------------------------------------------------------------------------------------

class Folder:
    """A folder of the disk; a folder in it is known by its path."""

    def __init__(self, path: Path) -> None:
        self.path, self.root = path, str(path)

    def identity(self, folder: str) -> tuple[int, int]:
        status = os.stat(folder)
        return status.st_dev, status.st_ino

    def way(self, parts: Sequence[str]) -> list[str | None]:
        """The folders from the first one down to the one of these names, which is None where there is none."""
        folders = [os.path.join(self.root, *parts[:count]) for count in range(len(parts) + 1)]
        return list(folders) if os.path.isdir(folders[-1]) else [None]

    def entries(self, folder: str) -> Iterator[tuple[str, str, Any]]:
        """(name, kind, path of a folder or a found file); a kind that is neither says why it is left out."""
        with os.scandir(folder) as inside:
            for entry in inside:
                try:
                    status = entry.stat()
                except OSError:
                    if not entry.is_symlink():
                        raise
                    yield entry.name, NOTHING, None
                    continue
                if stat.S_ISDIR(status.st_mode):
                    yield entry.name, "folder", entry.path
                elif stat.S_ISREG(status.st_mode):
                    yield entry.name, "file", Found(entry.name, status.st_size)
                else:
                    yield entry.name, IRREGULAR, None


# ---- archives --------------------------------------------------------------------------------------------------------

@dataclass(frozen=True, slots=True)
class _Link:
    """A symbolic link of an archive: what it says."""

    to: str


class Members:
    """An archive's members as nested dictionaries: name -> a folder, a found file, a link, or why it is left out."""

    def __init__(self, path: Path, left_out: Tally) -> None:
        self.path, self.left_out = path, left_out
        self.root: Tree = {}
        self.roots = {id(self.root)}
        """The archive's folder, and those of archives in it: no link leads out of its own."""

    def identity(self, folder: Tree) -> int:
        return id(folder)

    def way(self, parts: Sequence[str]) -> list[Tree | None]:
        """As :meth:`Folder.way`."""
        folders = [self.root]
        for part in parts:
            entry = folders[-1].get(part)
            entry = self._followed(folders[-1], entry) if isinstance(entry, _Link) else entry
            if not isinstance(entry, dict):
                return [None]
            folders.append(entry)
        return folders

    def folder(self, root: Tree, parts: Sequence[str]) -> Tree:
        """The folder of these names below ``root``, made where there is none."""
        here = root
        for count, part in enumerate(parts, 1):
            if not isinstance(here.get(part), dict):
                if part in here:
                    self.left_out.add("files and links that a folder of their name replaces", "/".join(parts[:count]))
                here[part] = {}
            here = here[part]
        return here

    def add(self, root: Tree, name: str, entry: Found | _Link | str) -> None:
        """Put a member in its place; a text says why one that is neither file nor link is left out."""
        *folders, last = PurePosixPath(name).parts
        folder = self.folder(root, folders)
        if isinstance(folder.get(last), dict):
            return self.left_out.add("files with the name of a folder", name)
        if last in folder:
            self.left_out.add("members that a later one of their name replaces", name)
        folder[last] = entry

    def add_hard_link(self, root: Tree, name: str, target: str) -> None:
        """A second name of what was before it in the archive."""
        path = PurePosixPath(target)
        if path.is_absolute() or ".." in path.parts:
            return self.add(root, name, OUT)
        entry: Any = root
        for part in path.parts:
            entry = entry.get(part) if isinstance(entry, dict) else None
        self.add(root, name, NOTHING if entry is None or isinstance(entry, dict) else entry)

    def entries(self, folder: Tree) -> Iterator[tuple[str, str, Any]]:
        """As :meth:`Folder.entries`."""
        for name, entry in folder.items():
            if isinstance(entry, _Link):
                entry = self._followed(folder, entry)
            if isinstance(entry, dict):
                yield name, "folder", entry
            elif isinstance(entry, Found):
                yield name, "file", entry
            else:
                yield name, entry, None

    def _followed(self, folder: Tree, link: _Link) -> Tree | Found | str:
        """What a link in a folder leads to, or why it is left out."""
        above, here, todo = self._above(folder), folder, [link.to]
        for _ in range(_HOPS):
            if todo[0].startswith("/"):
                return OUT
            todo[:1] = [part for part in todo[0].split("/") if part not in ("", ".")]
            while todo:
                part = todo.pop(0)
                if not isinstance(here, dict):
                    return NOTHING
                if part == "..":
                    if not above:
                        return OUT
                    here = above.pop()
                    continue
                entry = here.get(part)
                if isinstance(entry, _Link):
                    todo = [entry.to, *todo]
                    break
                if isinstance(entry, dict):
                    above.append(here)
                elif not isinstance(entry, Found):
                    return NOTHING
                here = entry
            else:
                return here
        return NOTHING

    def _above(self, folder: Tree) -> list[Tree]:
        """The folders of its archive that a folder lies in, from the root on."""
        above: list[Tree] = []
        while id(folder) not in self.roots:
            folder = self._parents[id(folder)]
            above.insert(0, folder)
        return above

    @cached_property
    def _parents(self) -> dict[int, Tree]:
        parents, waiting = {}, [self.root]
        while waiting:
            here = waiting.pop()
            for entry in here.values():
                if isinstance(entry, dict):
                    parents[id(entry)] = here
                    waiting.append(entry)
        return parents


def is_compressed(path: Path) -> bool:
    """Whether a file starts as gzip, bzip2, xz or zstandard files do: no place in it can be reached directly."""
    if path.is_dir():
        return False
    with open(path, "rb") as file:
        return file.read(6).startswith((*_OPENERS, b"\x28\xb5\x2f\xfd"))


def stream(path: Path) -> IO[bytes]:
    """The content of a file, uncompressed where it is compressed; to be read forwards.

    Raises:
        OODError: compressed in another way than gzip, bzip2 or xz.
    """
    with open(path, "rb") as file:
        start = file.read(6)
    for magic, opener in _OPENERS.items():
        if start.startswith(magic):
            return opener(path)
    if is_compressed(path):
        raise OODError(f"{path}: compressed in a way this version does not read; gzip, bzip2 or xz expected")
    return open(path, "rb")


class _Window(io.RawIOBase):
    """A part of a file as a file of its own."""

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        self.file, self.start, self.size, self.at = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self.at = offset + (0, self.at, self.size)[whence]
        return self.at

    def tell(self) -> int:
        return self.at

    def read(self, size: int = -1) -> bytes:
        left = max(0, self.size - self.at)
        self.file.seek(self.start + self.at)
        content = self.file.read(left if size < 0 else min(size, left))
        self.at += len(content)
        return content


def _read_tar(file: IO[bytes], into: Members, root: Tree, start: int, end: int) -> None:
    """Members with their absolute offsets; a tar archive inside it is a folder named like it."""
    with tarfile.open(fileobj=_Window(file, start, end - start), mode="r:") as archive:
        while (member := archive.next()) is not None:
            archive.members.clear()  # 1.28 million of them would stay in memory
            name = safe_name(member.name.removeprefix("./"), str(into.path))
            at = start + member.offset_data
            if member.isdir():
                continue
            if member.issym():
                into.add(root, name, _Link(member.linkname))
            elif member.islnk():
                into.add_hard_link(root, name, member.linkname)
            elif not member.isreg():
                into.add(root, name, IRREGULAR)
            elif member.issparse():
                raise OODError(f"{into.path}: {name} is stored with holes (a sparse file); unpack the archive")
            elif at + member.size > end:
                raise tarfile.ReadError(f"{name} goes beyond its end")
            elif root is into.root and name.endswith(".tar") and not any(map(reason, PurePosixPath(name).parts)):
                inner = into.folder(root, PurePosixPath(name.removesuffix(".tar")).parts)
                into.roots.add(id(inner))
                _read_tar(file, into, inner, at, at + member.size)
            else:
                into.add(root, name, Found(name, member.size, at, member.size))


def _read_zip(file: IO[bytes], into: Members) -> None:
    with zipfile.ZipFile(file) as archive:
        names = [info.orig_filename for info in archive.infolist()]
        backslashes = not any("/" in name for name in names)  # of a program that writes its own system's separators
        for info in archive.infolist():
            name = info.orig_filename.replace("\\", "/") if backslashes else info.orig_filename
            if name.endswith("/"):
                continue
            name = safe_name(name, str(into.path))
            if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise OODError(f"{into.path}: {name} is encrypted or compressed in an unusual way; unpack it")
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind == stat.S_IFLNK:
                into.add(into.root, name, _Link(os.fsdecode(archive.read(info))))
                continue
            if kind not in (0, stat.S_IFREG):
                into.add(into.root, name, IRREGULAR)
                continue
            file.seek(info.header_offset)
            name_length, extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
            into.add(into.root, name, Found(
                name, info.file_size, info.header_offset + _LOCAL_HEADER.size + name_length + extra,
                info.compress_size, info.compress_type == zipfile.ZIP_DEFLATED, info.CRC))
