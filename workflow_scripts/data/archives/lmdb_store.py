"""The archive form of large sets: encoded images, as they were published, in one LMDB file; its layout and its reading.

Key: the image's number, 8 bytes big-endian, in sorted (class, file) order. Value: the original bytes. Further records:
``labels`` (int64, little-endian), ``names`` (UTF-8, separated by NUL), ``classes``, ``count``, ``corrupt`` (images left
out), ``left_out`` (files that are no images; archives of earlier versions lack it), ``definition``, ``sources`` and
``format`` (JSON). :mod:`workflow_scripts.data.archives.packing` writes it.

Reading takes no lock. LMDB allows one environment per process and file: it is opened when first needed, shared by all
:class:`Archive` objects of the process, and opened anew in a forked child. An archive can be sent to spawned workers.
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workflow_scripts.core.errors import OODError

if TYPE_CHECKING:  # imported where an archive is opened: stores without one are read where lmdb is not installed
    import lmdb

FORMAT = {"format": "encoded images", "version": 1}
RECORDS = ("classes", "corrupt", "count", "definition", "format", "labels", "left_out", "names", "sources")
"""In LMDB's order."""
_LATER = {"left_out"}  # records that files of earlier versions lack
_MAPPED = 2**28  # bytes read before the file is mapped anew: what was touched counts as the process's memory
STATE = b"\0"  # record of an unfinished file; sorts before every image number, so that numbers can be appended


def key(number: int) -> bytes:
    """The key of an image: 8 bytes, big-endian, so that LMDB's order is the order of the numbers."""
    return number.to_bytes(8, "big")


@dataclass
class _Open:
    """An environment of this process and its one read transaction."""

    process: int
    file: tuple[int, int, int]
    environment: lmdb.Environment
    transaction: lmdb.Transaction
    touched: int = 0
    """Bytes read so far, which count as this process's memory while they are mapped."""

    def close(self) -> None:
        self.transaction.abort()
        self.environment.close()


_OPEN: dict[str, _Open] = {}
_LOCK = threading.RLock()  # threads share the environment


def _unlocked() -> None:
    global _LOCK
    _LOCK = threading.RLock()  # another thread of the parent may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlocked)


def _get(path: str, name: bytes) -> bytes | None:
    """A record of the file that this process has open at ``path``."""
    with _LOCK:
        found = _OPEN.get(path)
        if found is None or found.process != os.getpid() or found.touched > _MAPPED:
            found = _open(path)
        content = found.transaction.get(name)
        found.touched += len(content or b"")
        return content


def _open(path: str) -> _Open:
    """Open the file that lies at ``path`` now, or find it open."""
    import lmdb

    again = "delete it and run again; the pack stage writes it"
    try:
        status = os.stat(path)
        file = (status.st_dev, status.st_ino, status.st_mtime_ns)
        found = _OPEN.get(path)
        if found is not None:
            if (found.process, found.file) == (os.getpid(), file) and found.touched <= _MAPPED:
                return found
            # another file has taken its place, this is a fork of the process that opened it, or it is mapped anew
            _OPEN.pop(path).close()
        environment = lmdb.open(path, subdir=False, readonly=True, lock=False, create=False)
        _OPEN[path] = _Open(os.getpid(), file, environment, environment.begin())
    except FileNotFoundError:
        raise OODError(f"{path}: the LMDB file is not there; the pack stage writes it") from None
    except (lmdb.Error, OSError) as error:
        raise OODError(f"{path}: not a whole LMDB file ({error}); {again}") from None
    size = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    if status.st_size < size:  # touching what lacks would end the process
        _OPEN.pop(path).close()
        raise OODError(f"{path}: {size:,} bytes expected, found {status.st_size:,}; it is truncated; {again}")
    return _OPEN[path]


class Archive:
    """N encoded images in one LMDB file.

    Raises:
        OODError: no such file, truncated, unfinished or no file of ours.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = str(Path(path).resolve())
        with _LOCK:
            _open(self.path)
        lacking = [name for name in RECORDS if name not in _LATER and _get(self.path, name.encode()) is None]
        if lacking or self._json("format") != FORMAT:
            what = "an unfinished file" if _get(self.path, STATE) is not None else "no archive of encoded images"
            raise OODError(f"{self.path}: {what}: it lacks {', '.join(lacking) or 'the expected format'}; run the pack "
                           "stage on the raw files")

    def __reduce__(self) -> tuple:
        return Archive, (self.path,)

    def _json(self, name: str) -> Any:
        return json.loads(_get(self.path, name.encode()))

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def labels(self) -> np.ndarray:
        """int64 (N,); -1 where there is no label."""
        return np.frombuffer(_get(self.path, b"labels"), "<i8").astype(np.int64)

    @cached_property
    def names(self) -> list[str]:
        """N names inside their sources."""
        text = _get(self.path, b"names").decode()
        return text.split("\0") if text else []

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the labels."""
        return tuple(self._json("classes"))

    @property
    def definition(self) -> dict[str, Any]:
        """How the set was made."""
        return self._json("definition")

    @property
    def sources(self) -> dict[str, str]:
        """Raw file -> its sha256; for a folder the hash of its first level."""
        return self._json("sources")

    @property
    def corrupt(self) -> list[list[str]]:
        """Name and what was wrong, of each image that was left out since it could not be decoded."""
        return self._json("corrupt")

    @property
    def left_out(self) -> list[dict[str, Any]]:
        """Files of the sources that are no images: the records of a :class:`~workflow_scripts.data.tally.Tally`."""
        return json.loads(_get(self.path, b"left_out") or b"[]")

    def read(self, number: int) -> bytes:
        """The encoded image.

        Raises:
            OODError: there is no image of this number.
        """
        content = _get(self.path, key(number)) if number >= 0 else None
        if content is None:
            raise OODError(f"{self.path}: no image {number}; it holds {len(self):,}, numbered from 0")
        return content
