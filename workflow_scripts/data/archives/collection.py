"""Encoded images where they lie: folders, tar archives, tar archives of tar archives (ImageNet's), zip archives.

:func:`collect` lists them once (:mod:`workflow_scripts.data.archives.listing` says what is an image), in an order that
depends on nothing but their names (class, then file; ImageFolder's order), with the place of their bytes;
:meth:`Collection.read` then fetches any of them, from any process. Nothing is unpacked.
"""

from __future__ import annotations

import lzma
import os
import zlib
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np

from workflow_scripts.core.errors import OODError, nearest
from workflow_scripts.core.files import decoded, sha256
from workflow_scripts.core.fingerprint import Fingerprints
from workflow_scripts.core.sources import shown
from workflow_scripts.data.archives import imagenet
from workflow_scripts.data.archives.listing import SUFFIXES, listed
from workflow_scripts.data.archives.trees import Found, is_compressed, stream
from workflow_scripts.data.reading import raw_files, unlabelled
from workflow_scripts.data.tally import Tally

_SMALL = 16 * 1024  # bytes; a smaller file is read at once


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
    """int64 (N, 4): offset and stored size in the archive, whether deflated, CRC-32; -1 where there is none."""
    labels: np.ndarray
    """int64 (N,); -1 where there is no label."""
    classes: tuple[str, ...]
    """Class names in the order of the labels."""
    root: Path | None = None
    """The data root, for names in results."""
    left_out: Tally = field(default_factory=Tally)
    """Files of the sources that are no images."""
    compressed: frozenset[int] = frozenset()
    """Those of the sources that are read as a stream: forwards, by one thread."""
    _files: dict[int, int] = field(default_factory=dict, repr=False)
    _streams: dict[int, IO[bytes]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.names)

    def __getstate__(self) -> dict:
        return {**{k: v for k, v in self.__dict__.items() if k != "sources"}, "_files": {}, "_streams": {}}

    def part(self, numbers: range) -> Collection:
        """These images alone."""
        at = slice(numbers.start, numbers.stop)
        return replace(self, names=self.names[at], source=self.source[at], size=self.size[at], place=self.place[at],
                       labels=self.labels[at], _files={}, _streams={})

    def close(self) -> None:
        """Close the archives; the next read opens them again."""
        while self._files:
            os.close(self._files.popitem()[1])
        while self._streams:
            self._streams.popitem()[1].close()

    def forwards(self, index: np.ndarray) -> np.ndarray:
        """Positions in ``index`` in the order in which its images are best read. int64 (n,) -> int64 (n,)."""
        if not self.compressed:
            return np.arange(len(index))
        return np.lexsort((self.place[index, 0], self.source[index]))

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
        offset, stored, deflated, crc = self.place[i].tolist()
        try:
            if offset < 0:
                with open(self.path(i), "rb", buffering=0) as file:
                    content = file.read()
            elif int(self.source[i]) in self.compressed:
                source = int(self.source[i])
                if source not in self._streams:
                    self._streams[source] = stream(self.opened[source])
                self._streams[source].seek(offset)
                content = self._streams[source].read(stored)
            else:
                content = os.pread(self._descriptor(int(self.source[i])), stored, offset)
                if deflated:
                    content = zlib.decompress(content, -15)
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise OODError(f"{self.path(i)}: {self.names[i]} cannot be read ({error})") from None
        if len(content) != self.size[i]:
            raise OODError(f"{self.path(i)}: {self.names[i]} has {len(content):,} bytes, had {self.size[i]:,} when it "
                           "was listed; it changed meanwhile, run again")
        if crc >= 0 and zlib.crc32(content) != crc:
            raise OODError(f"{self.path(i)}: {self.names[i]} has another checksum than the archive states; the archive "
                           "is damaged: fetch it again")
        return content

    def ends(self, i: int, count: int = 16) -> tuple[bytes, bytes]:
        """First and last bytes of image ``i``, and a hint to the system to read the rest ahead.

        Raises:
            OODError: as :meth:`read`.
        """
        offset, _, deflated, _ = self.place[i].tolist()
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
        OODError: no source, no image, an archive that is not whole, an image without a class, a class of the list
            without images.
    """
    paths = tuple(raw_files(options.files, root))
    opened = tuple((plain or {}).get(path, path) for path in paths)
    under = options.under.strip("/")
    found, texts, left_out = [], {}, Tally()
    for source, path in enumerate(paths):
        entries, text = listed(opened[source], under, left_out, also, options.annotations)
        if text is not None:
            texts[source] = text
        if not entries:
            there = f"; left out: {'; '.join(left_out.lines())}" if left_out else ""
            raise OODError(f"{path}: no image file{f' below {under}' if under else ''}; expected "
                           f"{', '.join(sorted(SUFFIXES))}{there}")
        found += [(source, entry) for entry in entries]
    labels, classes = _labels(options, root, opened, under, found, texts)

    def place_of(k: int) -> tuple:  # as ImageFolder walks: class, folders by their path, files
        source, entry = found[k]
        folder, _, file = entry.name.rpartition("/")
        return source if not labels else 0, labels[k] if labels else folder.partition("/")[0], folder, file

    order = sorted(range(len(found)), key=place_of)
    if labels:
        order = [k for k in order if labels[k] >= 0]
    place = np.array([(e.offset, e.stored, e.deflated, e.crc) for _, e in found], np.int64).reshape(-1, 4)
    return Collection(
        paths=paths, opened=opened, names=[found[k][1].name for k in order],
        source=np.array([found[k][0] for k in order], np.int16),
        size=np.array([found[k][1].size for k in order], np.int64), place=place[order],
        labels=np.array([labels[k] for k in order], np.int64) if labels else unlabelled(len(order)),
        classes=tuple(classes), root=root, left_out=left_out,
        compressed=frozenset(k for k, path in enumerate(opened) if is_compressed(path)))


def _labels(options: object, root: Path | None, paths: tuple[Path, ...], under: str, found: list[tuple[int, Found]],
            texts: dict[int, Found]) -> tuple[list[int], list[str]]:
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
                             np.array([[text.offset, text.stored, text.deflated, text.crc]]), unlabelled(1), (),
                             compressed=frozenset({0} if is_compressed(path) else ()))
            named |= dict(line.split("\t")[:2] for line in decoded(one.read(0), text.name).splitlines() if "\t" in line)
            one.close()
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
