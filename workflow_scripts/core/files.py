"""Files: atomic writing, checksums, text."""

from __future__ import annotations

import codecs
import errno
import glob
import hashlib
import os
import re
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

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


CHECKSUM = r"^((sha256|lines|paths):[0-9a-f]{64}|md5:[0-9a-f]{32}|git:[0-9a-f]{40})$"
"""How a published checksum is written; `git:` is the id of the file's blob in a Git repository; `lines:` and `paths:`
are those of a list of images (:func:`list_digests`)."""


def sha256(path: str | os.PathLike) -> str:
    """SHA-256 of a file's content, in hexadecimal; read in blocks."""
    return digests(path, ["sha256"])["sha256"]


def list_lines(text: str) -> list[str]:
    """The lines of a list of images, without white space at their ends; empty lines are none."""
    return [line for line in map(str.strip, text.splitlines()) if line]


def list_digests(lines: Iterable[str]) -> dict[str, str]:
    """SHA-256 of the sorted lines ``path label`` of a list of images (``lines``) and of the sorted paths (``paths``),
    each joined by newlines: equal for copies in another order, or with other ends of lines."""
    lines = list(lines)
    parts = {"lines": lines, "paths": [line.rpartition(" ")[0] for line in lines]}
    return {kind: hashlib.sha256("\n".join(sorted(part)).encode()).hexdigest() for kind, part in parts.items()}


def digests(path: str | os.PathLike, kinds: Iterable[str]) -> dict[str, str]:
    """Digests of a file. ``sha256``, ``md5``, ``git``, the id that Git gives it, and those of :func:`list_digests` ->
    hexadecimal."""
    if not (kinds := set(kinds)).isdisjoint(("lines", "paths")):
        listed = list_digests(list_lines(Path(path).read_text(encoding="utf-8", errors="replace")))
        return {**listed, **digests(path, kinds - listed.keys())}
    with open(path, "rb") as file:
        hashes = {kind: hashlib.new("sha1" if kind == "git" else kind, usedforsecurity=False) for kind in kinds}
        if "git" in hashes:
            hashes["git"].update(b"blob %d\0" % os.fstat(file.fileno()).st_size)
        while block := file.read(_BLOCK):
            for one in hashes.values():
                one.update(block)
    return {kind: one.hexdigest() for kind, one in hashes.items()}


def decoded(content: bytes, path: str | os.PathLike) -> str:
    """The text of a file: UTF-8, or UTF-16 where a byte order mark says so; without that mark.

    Raises:
        OODError: it is another encoding; with the line.
    """
    coding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        return content.decode(coding)
    except UnicodeDecodeError as error:
        line = content[:error.start].count(b"\n") + 1
        shown = content.split(b"\n")[line - 1].strip().decode("latin-1")
        raise OODError(f"{path}, line {line}: not {coding[:6].rstrip('-').upper()} (byte {content[error.start]:#04x}; "
                       f"as Latin-1 the line reads '{shown[:60]}'); save the file as UTF-8") from None


def read_lines(path: str | os.PathLike, what: str) -> list[str]:
    """Lines of a text file, without the spaces around them; ends of lines of any system.

    Args:
        what: what it is, for errors.

    Raises:
        OODError: it cannot be read, or its encoding is not known.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise OODError(f"{path}: {what} cannot be read ({error.strerror})") from None
    return [line.strip() for line in re.split(r"\r\n|\r|\n", decoded(content, path))]


def uncommented(line: str) -> str:
    """A line without its comment, which ``#`` begins at the start or after a space: it may be part of a name."""
    return re.split(r"(?:^|\s)#", line, maxsplit=1)[0].strip()


def read_numbers(path: str | os.PathLike, what: str) -> list[int]:
    """The whole numbers of a text file, one a line or several.

    Raises:
        OODError: it cannot be read, or a line holds something else.
    """
    numbers = []
    for at, line in enumerate(read_lines(path, what), 1):
        try:
            numbers += [int(word) for word in uncommented(line).split()]
        except ValueError:
            raise OODError(f"{path}, line {at}: {what}, one number a line, expected; found '{line[:60]}'") from None
    return numbers
