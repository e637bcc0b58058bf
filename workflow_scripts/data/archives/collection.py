"""Encoded images where they lie: folders, tar archives, tar archives of tar archives (ImageNet's), zip archives.

:func:`collect` lists them once, in an order that depends on nothing but their names (class, then file; ImageFolder's
order), with the place of their bytes; :meth:`Collection.read` then fetches any of them, from any process. Nothing is
unpacked: a name is never used as a path to write to, and links and devices are not followed.
"""

from __future__ import annotations

import io
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np

from workflow_scripts.core.errors import OODError, nearest
from workflow_scripts.core.files import decoded, sha256
from workflow_scripts.core.fingerprint import Fingerprints
from workflow_scripts.core.sources import shown
from workflow_scripts.data.archives import imagenet
from workflow_scripts.data.archives.unpack import safe_name
from workflow_scripts.data.reading import raw_files, unlabelled

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".webp", ".tif", ".tiff"}
_SMALL = 16 * 1024  # bytes; a smaller file is read at once
MEMBER_CAP = 256 * 2**20  # bytes; no single image file is as large
_LOCAL_HEADER = struct.Struct("<26xHH")  # of a zip member: lengths of its name and extra field
_BROKEN = (tarfile.TarError, zipfile.BadZipFile, EOFError, struct.error, zlib.error)


@dataclass(frozen=True, slots=True)
class _Found:
    """One file of a source: its name, and where its bytes lie (a path, or offset and stored size in the archive)."""

    name: str
    size: int
    offset: int = -1
    stored: int = -1
    deflated: bool = False


@dataclass(frozen=True)
class Collection:
    """N encoded images. Can be sent to other processes; each opens the archives for itself."""

    paths: tuple[Path, ...]
    """The sources: folders and archives."""
    opened: tuple[Path, ...]
    """The same, or the uncompressed copies that are read in their place."""
    names: list[str]
    """N names inside their sources."""
    source: np.ndarray
    """int16 (N,): which of the sources."""
    size: np.ndarray
    """int64 (N,): bytes of each image."""
    place: np.ndarray
    """int64 (N, 3): offset and stored size in the archive, whether deflated; -1 in folders."""
    labels: np.ndarray
    """int64 (N,); -1 where there is no label."""
    classes: tuple[str, ...]
    """Class names in the order of the labels."""
    root: Path | None = None
    """The data root, for names in results."""
    _files: dict[int, int] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.names)

    def __getstate__(self) -> dict:
        return {**{k: v for k, v in self.__dict__.items() if k != "sources"}, "_files": {}}

    def part(self, numbers: range) -> Collection:
        """These images alone."""
        at = slice(numbers.start, numbers.stop)
        return replace(self, names=self.names[at], source=self.source[at], size=self.size[at], place=self.place[at],
                       labels=self.labels[at], _files={})

    def close(self) -> None:
        """Close the archives; the next read opens them again."""
        while self._files:
            os.close(self._files.popitem()[1])

    @cached_property
    def sources(self) -> dict[str, str]:
        """Raw file -> its sha256; for a folder the hash of all names and contents. Reads the archives whole, once."""
        return {shown(p, self.root): Fingerprints().text(p) if p.is_dir() else sha256(p) for p in self.paths}

    def path(self, i: int) -> str:
        """The file an image lies in."""
        path = str(self.opened[self.source[i]])
        return f"{path}/{self.names[i]}" if self.place[i, 0] < 0 else path

    def _descriptor(self, source: int) -> int:
        if source not in self._files:
            self._files[source] = os.open(self.opened[source], os.O_RDONLY)
        return self._files[source]  # read with pread, which moves no position, so a fork may share it

    def read(self, i: int) -> bytes:
        """The bytes of image ``i``.

        Raises:
            OODError: the file has changed or gone since it was listed, or its archive is damaged.
        """
        offset, stored, deflated = self.place[i].tolist()
        try:
            if offset < 0:
                with open(self.path(i), "rb", buffering=0) as file:
                    content = file.read()
            else:
                content = os.pread(self._descriptor(int(self.source[i])), stored, offset)
                if deflated:
                    content = zlib.decompress(content, -15)
        except (OSError, zlib.error) as error:
            raise OODError(f"{self.path(i)}: {self.names[i]} cannot be read ({error})") from None
        if len(content) != self.size[i]:
            raise OODError(f"{self.path(i)}: {self.names[i]} has {len(content):,} bytes, had {self.size[i]:,} when it "
                           "was listed; it changed meanwhile, run again")
        return content

    def ends(self, i: int, count: int = 16) -> tuple[bytes, bytes]:
        """First and last bytes of image ``i``, and a hint to the system to read the rest ahead.

        Raises:
            OODError: as :meth:`read`.
        """
        offset, _, deflated = self.place[i].tolist()
        size = int(self.size[i])
        if deflated > 0 or size <= _SMALL:
            content = self.read(i)
            return content[:count], content[-count:]
        try:
            file = os.open(self.path(i), os.O_RDONLY) if offset < 0 else self._descriptor(int(self.source[i]))
            try:
                start = max(offset, 0)
                if hasattr(os, "posix_fadvise"):
                    os.posix_fadvise(file, start, size, os.POSIX_FADV_WILLNEED)
                return os.pread(file, count, start), os.pread(file, count, start + size - count)
            finally:
                if offset < 0:
                    os.close(file)
        except OSError as error:
            raise OODError(f"{self.path(i)}: {self.names[i]} cannot be read ({error})") from None


def collect(options: object, root: Path | None, plain: dict[Path, Path] | None = None,
            also: str = "") -> Collection:
    """List the images that ``options`` (of ``data.readers.lmdb_images``) name.

    Args:
        options: `files`, `under`, `labels`, `devkit`, `annotations`, `only` are read.
        root: the data root.
        plain: uncompressed copies of compressed tar archives, by their path.
        also: files of this suffix are listed as well.

    Raises:
        OODError: no source, no image, an archive that is not whole or is compressed, an image without a class, a class
            of the list without images.
    """
    paths = tuple(raw_files(options.files, root))
    opened = tuple((plain or {}).get(path, path) for path in paths)
    under = options.under.strip("/")
    found, texts = [], {}
    for source, path in enumerate(paths):
        entries = []
        for entry in _listed(opened[source]):
            if options.annotations and entry.name == options.annotations:
                texts[source] = entry
            elif _wanted(entry.name, under) or (also and entry.name.endswith(also)):
                entries.append(entry)
        if not entries:
            raise OODError(f"{path}: no image file{f' below {under}' if under else ''}; expected "
                           f"{', '.join(sorted(SUFFIXES))}")
        found += [(source, entry) for entry in entries]
    labels, classes = _labels(options, root, opened, under, found, texts)
    def place_of(k: int) -> tuple:  # as ImageFolder walks: class, folders by their path, files
        source, entry = found[k]
        folder, _, file = entry.name.rpartition("/")
        return source if not labels else 0, labels[k] if labels else folder.partition("/")[0], folder, file

    order = sorted(range(len(found)), key=place_of)
    if labels:
        order = [k for k in order if labels[k] >= 0]
    place = np.array([(e.offset, e.stored, e.deflated) for _, e in found], np.int64).reshape(-1, 3)
    return Collection(
        paths=paths, opened=opened, names=[found[k][1].name for k in order],
        source=np.array([found[k][0] for k in order], np.int16),
        size=np.array([found[k][1].size for k in order], np.int64), place=place[order],
        labels=np.array([labels[k] for k in order], np.int64) if labels else unlabelled(len(order)),
        classes=tuple(classes), root=root)


def _labels(options: object, root: Path | None, paths: tuple[Path, ...], under: str, found: list[tuple[int, _Found]],
            texts: dict[int, _Found]) -> tuple[list[int], list[str]]:
    """(label of each file, class names); a file of a class that is not wanted has -1. Empty: no labels."""
    if options.labels == "none":
        return [], []
    named: dict[str, str] = {}
    if options.annotations:
        for source, path in enumerate(paths):
            if source not in texts:
                raise OODError(f"{path}: {options.annotations} is not in it, the text that names each image's class")
            text = texts[source]
            one = Collection((path,), (path,), [text.name], np.zeros(1, np.int16), np.array([text.size]),
                             np.array([[text.offset, text.stored, text.deflated]]), unlabelled(1), ())
            named |= dict(line.split("\t")[:2] for line in decoded(one.read(0), text.name).splitlines() if "\t" in line)
    of = [named.get(PurePosixPath(e.name).name) if named else _folder(e.name, under) for _, e in found]
    lacking = [found[k][1].name for k, name in enumerate(of) if name is None]
    if lacking and options.devkit and not named:
        truth = imagenet.validation_classes(raw_files(options.devkit, root)[0])
        of = [name or truth.get(PurePosixPath(e.name).stem) for name, (_, e) in zip(of, found, strict=True)]
        lacking = [found[k][1].name for k, name in enumerate(of) if name is None]
    if lacking:
        hint = (f"; did you mean under: {_parent(lacking[0])!r}?" if "/" in lacking[0] and under else "")
        raise OODError(f"{paths[0]}: {len(lacking):,} image(s) have no class, the first {lacking[0]}; class folders "
                       f"{f'below {under} ' if under else ''}expected, or labels: none{hint}")
    classes = imagenet.class_list(options.only) if options.only else sorted(set(of))
    absent = sorted(set(classes) - set(of))
    if absent:
        raise OODError(f"{paths[0]}: no image of {len(absent)} of the {len(classes)} classes of {options.only}: "
                       f"{', '.join(absent[:5])}{nearest(absent[0], set(of))}")
    number = {name: i for i, name in enumerate(classes)}
    return [number.get(name, -1) for name in of], classes


def _folder(name: str, under: str) -> str | None:
    parts = PurePosixPath(name).relative_to(under or ".").parts
    return parts[0] if len(parts) > 1 else None


def _parent(name: str) -> str:
    return PurePosixPath(name).parent.parent.as_posix()


def _wanted(name: str, under: str) -> bool:
    path = PurePosixPath(name)
    return (path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
            and (not under or path.is_relative_to(under)))


# ---- listings --------------------------------------------------------------------------------------------------------

def _listed(path: Path) -> Iterator[_Found]:
    """The regular files of a folder or archive, in its own order."""
    if path.is_dir():
        yield from _in_folder(path, "")
        return
    try:
        with open(path, "rb") as file:
            if zipfile.is_zipfile(file) and not tarfile.is_tarfile(path):
                yield from _in_zip(file, path)
            else:
                file.seek(0)
                yield from _in_tar(file, path, "", 0)
    except _BROKEN as error:
        compressed = is_compressed(path)
        raise OODError(f"{path}: " + ("a compressed tar archive; the pack stage reads it" if compressed else
                       f"not a whole tar or zip archive ({error}); it is truncated, corrupt or another format; fetch "
                       "it again")) from None


def is_compressed(path: Path) -> bool:
    """Whether a file starts as gzip, bzip2, xz or zstandard files do: no place in it can be reached directly."""
    if path.is_dir():
        return False
    with open(path, "rb") as file:
        return file.read(6).startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd"))


def _in_folder(folder: Path, below: str) -> Iterator[_Found]:
    with os.scandir(folder / below) as entries:
        for entry in entries:
            name = f"{below}/{entry.name}" if below else entry.name
            if entry.is_dir():
                yield from _in_folder(folder, name)
            elif entry.is_file():
                yield _Found(name, entry.stat().st_size)


class _Window(io.RawIOBase):
    """A part of a file as a file of its own."""

    def __init__(self, file: io.BufferedReader, start: int, size: int) -> None:
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


def _in_tar(file: io.BufferedReader, path: Path, prefix: str, start: int, size: int = -1) -> Iterator[_Found]:
    """Members with their absolute offsets; a tar archive inside it is a folder named like it."""
    end = os.fstat(file.fileno()).st_size if size < 0 else start + size
    with tarfile.open(fileobj=_Window(file, start, end - start), mode="r:") as archive:
        while (member := archive.next()) is not None:
            archive.members.clear()  # 1.28 million of them would stay in memory
            if not member.isreg():
                continue  # folders, links and devices are never followed
            name = prefix + safe_name(member.name.removeprefix("./"), str(path))
            at = start + member.offset_data
            if at + member.size > end:
                raise tarfile.ReadError(f"{name} goes beyond its end")
            if name.endswith(".tar") and not prefix:
                yield from _in_tar(file, path, f"{name.removesuffix('.tar')}/", at, member.size)
            else:
                yield _Found(name, _capped(member.size, name, path), at, member.size)


def _in_zip(file: io.BufferedReader, path: Path) -> Iterator[_Found]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            name = safe_name(info.orig_filename, str(path))
            if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise OODError(f"{path}: {name} is encrypted or compressed in an unusual way; unpack it")
            file.seek(info.header_offset)
            name_length, extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
            yield _Found(name, _capped(info.file_size, name, path),
                         info.header_offset + _LOCAL_HEADER.size + name_length + extra, info.compress_size,
                         info.compress_type == zipfile.ZIP_DEFLATED)


def _capped(size: int, name: str, path: Path) -> int:
    if size > MEMBER_CAP and PurePosixPath(name).suffix.lower() in SUFFIXES:
        raise OODError(f"{path}: {name} claims {size:,} bytes, more than any image has")
    return size
