"""Locks between processes, also where the file system has none."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import BaseFileLock


def without_locks(folder: Path) -> str:
    """Why files of a folder cannot be locked, in the system's words; an empty text where they can."""
    # under a name of its own, so that no other thread, and no process of another machine, holds its lock
    with tempfile.NamedTemporaryFile(prefix=".lock.", dir=folder) as probe:
        try:
            fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:  # ENOLCK, ENOSYS, EOPNOTSUPP
            return os.strerror(error.errno or 0)
    return ""


def file_lock(path: Path) -> BaseFileLock:
    """A lock of that name, held by one process at a time; where there are no locks, a file that is there while it is
    held."""
    from filelock import FileLock, SoftFileLock  # only here: most jobs lock nothing

    return SoftFileLock(path.with_name(f"{path.name}.held")) if without_locks(path.parent) else FileLock(path)


def in_use(path: str | os.PathLike) -> bool:
    """Whether another process holds a lock on the file, as HDF5 does on one that it writes."""
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return isinstance(error, BlockingIOError)
    return False
