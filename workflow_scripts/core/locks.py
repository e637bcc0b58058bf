"""Locks between processes, also where the file system has none."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import BaseFileLock


def without_locks(folder: Path) -> str:
    """Why files of a folder cannot be locked, in the system's words; an empty text where they can."""
    probe = folder / f".lock.{os.getpid()}"
    try:
        with open(probe, "w", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:  # ENOLCK, ENOSYS, EOPNOTSUPP
                return os.strerror(error.errno or 0)
    finally:
        probe.unlink(missing_ok=True)
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
