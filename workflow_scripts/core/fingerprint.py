"""Fingerprints of raw files and folders: what is on the disk decides what runs again. Standard library only.

A fingerprint depends on names and contents alone, of a folder on those of every file at every depth, so that copying or
touching changes none. Contents are read once: what was read is kept below ``.snakemake``, and read again where a size,
a time, or an inode differs. The system moves a file's ctime with every change of its content, even where a program puts
the other time back; only a change of the disk below the file system goes unnoticed.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import sys
import time
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.files import atomic
from workflow_scripts.core.sources import printable, shown

KEPT = Path(".snakemake") / "fingerprints"
"""Folder of what earlier starts read, below the folder that a run works in. It may be deleted."""
_PART = 2048  # files of a folder whose contents are kept as one: a change of one reads so many again
_BLOCK = 2**20  # bytes read at a time
_THREADS = 8  # that read: on a network disk it is the wait for each file that counts
_RECENT = 2 * 10**9  # ns: a file changed since may change again without another time, so it is not kept
_AHEAD = 64  # parts that may be read before they are asked for
_KEEP = 60.0  # seconds of reading after which what was read is kept, for a start that is stopped
_SILENT = 10.0  # seconds of reading before a line says so, and between two of them
_UNREAD = b"!"  # begins the state of what cannot be read


class _Part(NamedTuple):
    """Files of one folder, sorted by name."""

    below: bytes
    """The folder, as a path below the source."""
    here: bytes
    files: list[tuple[bytes, bytes]]
    """Name and state of each: what tells it from the same file with other content."""
    changed: int
    """The latest ctime, in ns."""


class _Kept:
    """Contents that were read: the state of files -> the hash of their content. One file for each source.

    Of two runs that write it the later one counts, which is as right as the other. A file that is damaged is no file.
    """

    def __init__(self, folder: Path, source: Path, suffix: str = "") -> None:
        self.file = folder / f"{_hex(os.fsencode(source.absolute()))[:32]}{suffix}.json"
        self.before = self._read()
        self.now: dict[str, str] = {}
        self.written = time.monotonic()

    def _read(self) -> dict[str, str]:
        try:
            check, _, text = self.file.read_text(encoding="utf-8").partition("\n")
            return json.loads(text) if check == _hex(text.encode()) else {}
        except (OSError, ValueError):
            return {}

    def get(self, key: str) -> str | None:
        found = self.before.get(key)
        if found is not None:
            self.now[key] = found
        return found

    def write(self, all_seen: bool = False) -> None:
        """Keep what was read, and what was there where not all of it was seen. A folder that cannot be written is no
        error: the next start reads again."""
        self.written = time.monotonic()
        content = self.now if all_seen else {**self._read(), **self.now}
        if content == self.before:
            return
        text = json.dumps(content)
        try:
            with atomic(self.file) as partial:
                partial.write_text(f"{_hex(text.encode())}\n{text}", encoding="utf-8")
        except (OSError, OODError):
            pass


class _Reading:
    """What is said while contents are read: nothing for some seconds, then how far it is."""

    def __init__(self, source: Path) -> None:
        self.source, self.files, self.bytes, self.said = source, 0, 0, time.monotonic()

    def add(self, files: int, size: int) -> None:
        self.files, self.bytes = self.files + files, self.bytes + size
        if time.monotonic() - self.said > _SILENT:
            self.said = time.monotonic()
            print(f"{printable(self.source)}: reading its content, {self.files:,} files and {self.bytes / 1e9:.1f} GB "
                  "so far; later starts read it again only where sizes or times changed", file=sys.stderr, flush=True)


class Fingerprints:
    """Fingerprints of sources, each taken once in the life of this object."""

    def __init__(self, folder: Path = KEPT) -> None:
        """``folder``: where contents that were read are kept for the next start."""
        self.folder = folder
        self._taken: dict[Path, tuple[int | str, str]] = {}

    def of(self, paths: Sequence[Path], root: str | os.PathLike | None) -> list[list]:
        """``[path below the root, size in bytes, sha256 of its content]`` of each.

        For a folder: ``[path, "120 files", sha256 of their names and contents]``, at every depth. What cannot be
        read, such as a link to nothing, counts by its name; whoever reads it says so.
        """
        if not _reads:
            return [[printable(shown(path, root)), "not read", ""] for path in paths]
        files: dict[Path, list[Path]] = {}
        for path in paths:
            if path in self._taken:
                continue
            if path.is_dir():
                self._taken[path] = _folder(path, self.folder)
            else:
                files.setdefault(path.parent, []).append(path)
        for parent, together in files.items():
            self._taken |= zip(together, _files(together, _Kept(self.folder, parent, ".files")), strict=True)
        return [[printable(shown(path, root)), *self._taken[path]] for path in paths]

    def text(self, folder: Path) -> str:
        """What results say of a folder."""
        [[_, count, content]] = self.of([folder], None)
        return f"{count}, sha256 of names and contents {content}"


_reads = [True]


def read_nothing() -> None:
    """From now on no raw file of this process is read, and fingerprints are empty: for lists of jobs that are compared
    with nothing."""
    _reads.clear()


def _hex(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _files(paths: Sequence[Path], kept: _Kept) -> Iterator[tuple[int, str]]:
    """(bytes, hash) of each of some files of a folder."""
    def one(path: Path) -> tuple[int, str]:
        stat, before = path.stat(), time.time_ns() - _RECENT
        name, state = printable(path.name), _state(stat).decode()
        there, _, content = (kept.get(name) or "").rpartition(" ")
        if there != state:
            try:
                content = _content(os.fsencode(path), _Reading(path))[1].hex()
            except OSError as error:
                return stat.st_size, f"unreadable ({error.errno})"
            if stat.st_ctime_ns < before:
                kept.now[name] = f"{state} {content}"
        return stat.st_size, content

    with ThreadPoolExecutor(min(_THREADS, len(paths))) as pool:
        yield from pool.map(one, paths)
    kept.write()


def _folder(path: Path, folder: Path) -> tuple[str, str]:
    """("120 files", hash) of a folder."""
    whole, count = hashlib.sha256(), 0
    for part, content in _contents(_parts(path), _Kept(folder, path), path):
        whole.update(b"%s\0%s\n" % (part.below, content.encode()))
        count += len(part.files)
    return f"{count} files", whole.hexdigest()


def _parts(top: Path) -> Iterator[_Part]:
    """The files of a folder and of those below it, folders in the order of their paths. Links to folders are followed,
    but for those to a folder that they lie in."""
    first = os.fsencode(top)
    todo: list[tuple[bytes, bytes, tuple[bytes, ...]]] = [(b"", first, (os.path.realpath(first),))]
    while todo:
        below, here, above = todo.pop()
        files: list[tuple[bytes, bytes, int]] = []
        folders = []
        try:
            with os.scandir(here) as entries:
                for entry in entries:
                    if not _is_folder(entry):
                        files.append(_of_entry(entry))
                        continue
                    link = entry.is_symlink()
                    real = os.path.realpath(entry.path) if link else os.path.join(above[-1], entry.name)
                    if real in above:
                        files.append((entry.name, _UNREAD + b"loop", 0))
                    else:
                        folders.append((os.path.join(below, entry.name), entry.path, (*above, real)))
        except OSError as error:
            files.append((b"", _UNREAD + b"folder %d" % (error.errno or 0), 0))
        yield from _divided(below, here, sorted(files))
        todo += sorted(folders, reverse=True)


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _of_entry(entry: os.DirEntry) -> tuple[bytes, bytes, int]:
    """Name, state and ctime of a file."""
    try:
        stat = entry.stat()
    except OSError as error:
        return entry.name, _UNREAD + b"missing %d" % (error.errno or 0), 0
    return entry.name, _state(stat), stat.st_ctime_ns


def _state(stat: os.stat_result) -> bytes:
    return b"%d %d %d %d" % (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)


def _divided(below: bytes, here: bytes, files: list[tuple[bytes, bytes, int]]) -> Iterator[_Part]:
    """The files of a folder in parts that depend on names alone, so that one more leaves most parts as they are."""
    cuts = [0, len(files)]
    if len(files) > _PART:
        cuts[1:1] = [k for k in range(1, len(files)) if zlib.crc32(files[k][0]) % (_PART // 4) == 0]
    for start, end in itertools.pairwise(cuts):
        part = files[start:end]
        yield _Part(below, here, [file[:2] for file in part], max((file[2] for file in part), default=0))


def _contents(parts: Iterator[_Part], kept: _Kept, source: Path) -> Iterator[tuple[_Part, str]]:
    """Each part with the hash of its names and contents: kept from an earlier start, or read."""
    reading, before = _Reading(source), time.time_ns() - _RECENT
    ahead: deque[tuple[_Part, str, Future[tuple[str, bool]] | None]] = deque()

    def next_one() -> tuple[_Part, str]:
        part, state, future = ahead.popleft()
        content, whole = future.result() if future else (kept.now[state], False)
        if whole and part.changed < before:
            kept.now[state] = content
        if time.monotonic() - kept.written > _KEEP:
            kept.write()
        return part, content

    with ThreadPoolExecutor(_THREADS) as pool:
        for part in parts:
            state = _hex(b"\n".join([b"%s\0%s" % file for file in part.files]))
            unread = kept.get(state) is None
            ahead.append((part, state, pool.submit(_read, part, reading) if unread else None))
            if len(ahead) > _AHEAD:
                yield next_one()
        while ahead:
            yield next_one()
    kept.write(all_seen=True)


def _read(part: _Part, reading: _Reading) -> tuple[str, bool]:
    """The hash of names and contents, and whether all could be read."""
    whole, complete = hashlib.sha256(), True
    for name, state in part.files:
        if not state.startswith(_UNREAD):
            try:
                size, content = _content(os.path.join(part.here, name), reading)
                state = b"%d %s" % (size, content)
            except OSError as error:
                state, complete = _UNREAD + b"file %d" % (error.errno or 0), False
        whole.update(b"%s\0%s\n" % (name, state))
    return whole.hexdigest(), complete


def _content(path: bytes, reading: _Reading) -> tuple[int, bytes]:
    """(size, hash) of what a file holds."""
    content, size = hashlib.sha256(), 0
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe without a writer is empty
    try:
        while block := os.read(descriptor, _BLOCK):
            content.update(block)
            size += len(block)
            reading.add(0, len(block))
    finally:
        os.close(descriptor)
    reading.add(1, 0)
    return size, content.digest()
