"""Read archives without trusting them: tar (plain, gz, bz2, xz), zip and single gz files.

:func:`members` hands out the regular files of an archive one by one; :func:`extract` writes them to a folder. Nothing
is extracted by a member's own path, mode or owner: names are checked, links are read through (only to regular files of
the same archive, never created), devices and pipes are refused, and the sizes an archive declares are added up against
a cap before their content is read. Nothing is unpickled.
"""

from __future__ import annotations

import contextlib
import gzip
import lzma
import os
import posixpath
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.files import put_in_place

CAP = 2**39  # bytes (512 GiB) in one archive: ImageNet's training images are 148 GB
BLOCK = 2**20  # bytes read at a time
ENTRY = 512  # bytes an entry counts for at least, so that a bomb of empty files ends as well
_BROKEN = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError,
           NotImplementedError)
_NOWHERE = f"{os.sep}archive"  # a folder for tarfile's own check of members; nothing is written there


@dataclass(frozen=True)
class Member:
    """A regular file of an archive; to be read before the next one is asked for."""

    name: str
    """Path inside the archive: relative, with ``/``, without ``.`` and ``..``."""
    size: int | None
    """Bytes the archive declares; None: it does not say (gz)."""
    open: Callable[[], Content]
    """Opens its content."""

    def read(self) -> bytes:
        """Its whole content."""
        with self.open() as content:
            return content.read()


class Content:
    """A member's bytes: no more than allowed, a damaged archive reported as an error of ours."""

    def __init__(self, file: IO[bytes], allowed: int, where: str) -> None:
        self.file, self.left, self.where = file, allowed, where

    def read(self, size: int = -1) -> bytes:
        """The next ``size`` bytes; all that are left when negative."""
        if size < 0:
            return b"".join(iter(partial(self.read, BLOCK), b""))
        with _readable(self.where):
            block = self.file.read(min(size, self.left + 1))
        self.left -= len(block)
        if self.left < 0:
            raise _too_large(self.where)
        return block

    def __enter__(self) -> Content:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


def members(archive: str | os.PathLike | Content, cap: int = CAP, where: str = "") -> Iterator[Member]:
    """The regular files of an archive, in its order.

    Args:
        archive: a file; or the content of a member that is itself a tar archive (read forwards; links are refused).
        cap: bytes that all members together may have.
        where: names the archive in errors; left out: its path.

    Raises:
        OODError: an absolute path, ``..``, a link that leads out or to no regular file, a device, more than ``cap``
            bytes, an encrypted member, or an archive that is not whole.
    """
    where = where or str(getattr(archive, "where", archive))
    with _readable(where):
        if isinstance(archive, Content):
            with tarfile.open(fileobj=archive, mode="r|*") as tar:
                yield from _tar(tar, cap, where, forwards=True)
        elif Path(archive).suffix == ".gz" and not Path(archive).stem.endswith(".tar"):
            yield Member(safe_name(Path(archive).stem, where), None, partial(_open_gz, archive, cap, where))
        elif tarfile.is_tarfile(archive):  # before zip: a tar whose last file is a zip looks like one
            with tarfile.open(archive) as tar:
                yield from _tar(tar, cap, where)
        else:
            with zipfile.ZipFile(archive) as zipped:
                yield from _zip(zipped, cap, where)


def extract(archive: str | os.PathLike, folder: str | os.PathLike, cap: int = CAP) -> Path:
    """Write the regular files of an archive below ``folder``, which appears only when all are written.

    Files get ordinary modes; empty folders are not made.

    Raises:
        OODError: ``folder`` exists, two members have one path, or as :func:`members`.
    """
    folder = Path(folder)
    if folder.exists():
        raise OODError(f"{folder}: exists already; remove it to unpack {archive} anew")
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    unfinished.mkdir()
    try:
        for member in members(archive, cap):
            path = unfinished / member.name
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with member.open() as content, open(path, "xb") as file:
                    shutil.copyfileobj(content, file, BLOCK)
            except (FileExistsError, NotADirectoryError, IsADirectoryError):
                raise _refused(str(archive), member.name, "there twice, or a file as well as a folder") from None
        put_in_place(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def safe_name(name: str, where: str) -> str:
    """A member's path as it may be used: relative and inside. ``where`` names the archive in errors.

    Raises:
        OODError: an absolute path, a drive, ``..``, a NUL character.
    """
    windows = PureWindowsPath(name)
    if name.startswith("/") or windows.drive or windows.root:
        raise _refused(where, name, "an absolute path")
    if ".." in windows.parts:
        raise _refused(where, name, "a path that leaves the folder ('..')")
    if "\0" in name:
        raise _refused(where, name, "a name with a NUL character")
    return PurePosixPath(name).as_posix()


def _open_gz(archive: str | os.PathLike, cap: int, where: str) -> Content:
    return Content(gzip.GzipFile(archive), cap, where)


def _tar(tar: tarfile.TarFile, cap: int, where: str, forwards: bool = False) -> Iterator[Member]:
    total = 0
    for info in tar:
        name = safe_name(info.name, where)
        if not (info.isreg() or info.isdir() or info.issym() or info.islnk()):
            raise _refused(where, name, "a device or a pipe, not a file")
        source = info
        if info.issym() or info.islnk():
            if forwards:
                raise _refused(where, name, "a link, in an archive inside an archive")
            source = _linked(tar, info, name, where)
        try:
            tarfile.data_filter(info, _NOWHERE)
        except tarfile.FilterError as error:
            raise _refused(where, name, f"unsafe ({error})") from None
        total += max(source.size, ENTRY)
        if total > cap:
            raise _too_large(where, cap)
        if source.isreg():
            yield Member(name, source.size, partial(_open_tar, tar, source, where))
    if not total:  # a file of zeros reads as an empty tar archive
        raise tarfile.ReadError("nothing in it")


def _open_tar(tar: tarfile.TarFile, info: tarfile.TarInfo, where: str) -> Content:
    return Content(tar.extractfile(info), info.size, where)


def _linked(tar: tarfile.TarFile, info: tarfile.TarInfo, name: str, where: str) -> tarfile.TarInfo:
    """The regular file of the same archive that a link names."""
    target = _link_target(name if info.issym() else "", info.linkname, name, where)
    for other in tar.getmembers():
        if other.isreg() and posixpath.normpath(other.name) == target:
            return other
    raise _refused(where, name, f"a link to {info.linkname!r}, no regular file of the archive")


def _link_target(start: str, link: str, name: str, where: str) -> str:
    """Where a link found at ``start`` leads, inside the archive."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(start), link))
    if target.startswith(("/", "../")) or target == ".." or PureWindowsPath(link).drive or "\\" in link:
        raise _refused(where, name, f"a link that leads out of the archive ({link!r})")
    return target


def _zip(zipped: zipfile.ZipFile, cap: int, where: str) -> Iterator[Member]:
    infos = zipped.infolist()
    if not infos:
        raise zipfile.BadZipFile("nothing in it")
    names = [safe_name(info.orig_filename, where) for info in infos]
    if sum(max(info.file_size, ENTRY) for info in infos) > cap:
        raise _too_large(where, cap)
    for info, name in zip(infos, names, strict=True):
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or info.flag_bits & 1:
            raise _refused(where, name, "a link, a device or encrypted")
        if not info.is_dir():
            yield Member(name, info.file_size, partial(_open_zip, zipped, info, where))


def _open_zip(zipped: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> Content:
    with _readable(where):
        return Content(zipped.open(info), info.file_size, where)


@contextlib.contextmanager
def _readable(where: str) -> Iterator[None]:
    """Turns what the archive libraries raise for a damaged file into an error that names it."""
    try:
        yield
    except _BROKEN as error:
        raise OODError(f"{where}: not a whole archive ({type(error).__name__}: {error}); it is truncated, corrupt or "
                       "another format (tar, tar.gz, zip or gz expected): fetch it again") from None


def _refused(where: str, name: str, why: str) -> OODError:
    return OODError(f"{where}: member {name!r} is {why}; nothing of the archive is used. It is not what its publisher "
                    "made, or another format: fetch it again and compare its checksum")


def _too_large(where: str, cap: int | None = None) -> OODError:
    most = f"{cap:,} bytes" if cap else "it may"
    return OODError(f"{where}: holds more than {most}; it is damaged, an archive bomb, or the cap is too small for it")
