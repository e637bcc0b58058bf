"""Files: atomic writing, checksums, YAML."""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from workflow_scripts.core.errors import OODError

_NO_RENAME = (errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EXDEV, errno.EINVAL)
_ELSEWHERE = (errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EMFILE,
              errno.ENFILE, errno.ENOMEM)
_BLOCK = 2**20  # bytes read at a time


@contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; on success it replaces ``path``, on any error it is removed.

    What stood at ``path`` before stays until the new file is whole, so nothing good is lost by a failed run. Of two
    processes that write one file the later counts: it removes the other's temporary file, as it removes what a killed
    process left.

    Raises:
        OODError: another process began to write ``path`` after this one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        left.unlink(missing_ok=True)
    partial = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.partial")
    try:
        yield partial
        try:
            put_in_place(partial, path)
        except FileNotFoundError:
            raise OODError(f"{path}: another process began to write it after this one; its result counts") from None
    finally:
        partial.unlink(missing_ok=True)


def put_in_place(partial: str | os.PathLike, path: str | os.PathLike) -> None:
    """Rename what is whole now. Raises OODError where the file system cannot rename."""
    try:
        os.replace(partial, path)
    except OSError as error:
        if error.errno not in _NO_RENAME:
            raise
        raise OODError(f"{path}: its file system cannot rename a file ({error.strerror}), without which no result is "
                       "whole for certain; put results on another: snakemake --directory, key resources") from None


def not_to_blame(path: str | os.PathLike, error: Exception) -> None:
    """Pass over an error that a damaged file gives, when it is opened or read.

    Raises:
        OODError: the file may be whole, and something else keeps it from being read.
    """
    text, number = str(error), getattr(error, "errno", None)
    if "unable to lock file" in text:
        if number in (errno.EAGAIN, errno.EACCES):
            raise OODError(f"{path}: another process has it open to write; wait for it and run again") from None
        raise OODError(f"{path}: its file system has no locks ({os.strerror(number or 0)}); set "
                       "HDF5_USE_FILE_LOCKING=FALSE, or unset it, which does the same here") from None
    if number in _ELSEWHERE:
        raise OODError(f"{path}: cannot be read ({os.strerror(number)}); the file may be whole: see to its permissions "
                       "and its file system, then run again") from None


CHECKSUM = r"^(sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}|git:[0-9a-f]{40})$"
"""How a published checksum is written; `git:` is the id of the file's blob in a Git repository."""


def sha256(path: str | os.PathLike) -> str:
    """SHA-256 of a file's content, in hexadecimal; read in blocks."""
    return digests(path, ["sha256"])["sha256"]


def digests(path: str | os.PathLike, kinds: Iterable[str]) -> dict[str, str]:
    """Digests of a file in one pass. ``sha256``, ``md5`` and ``git``, the id that Git gives it -> hexadecimal."""
    with open(path, "rb") as file:
        hashes = {kind: hashlib.new("sha1" if kind == "git" else kind, usedforsecurity=False) for kind in kinds}
        if "git" in hashes:
            hashes["git"].update(b"blob %d\0" % os.fstat(file.fileno()).st_size)
        while block := file.read(_BLOCK):
            for one in hashes.values():
                one.update(block)
    return {kind: one.hexdigest() for kind, one in hashes.items()}


def read_yaml(path: str | os.PathLike, what: str = "file") -> Any:
    """What a YAML file holds.

    Args:
        what: what is said to be missing where there is none.

    Raises:
        OODError: it is not there, or not valid YAML.
    """
    import yaml  # only here: most jobs read none

    SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml, where PyYAML has it: ten times as fast
    try:
        return yaml.load(Path(path).read_bytes(), Loader=SafeLoader)
    except FileNotFoundError:
        raise OODError(f"{path}: the {what} is not there") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise OODError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
