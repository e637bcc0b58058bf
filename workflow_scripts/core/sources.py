"""Where raw files lie: patterns below the data root, ``file://`` URLs and absolute paths. Standard library only.

A source option is one pattern or a list of alternatives; the first alternative that exists wins. A pattern is a path
(file or folder) or a glob; a relative one is looked up below the data root.
"""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

_EDGE = 64 * 1024  # bytes at each end of a file


def _path(pattern: str, root: Path | None) -> Path | None:
    """The pattern as an absolute path; None when it is relative and there is no data root."""
    if pattern.startswith("file://"):
        pattern = pattern.removeprefix("file://").removeprefix("localhost")
        pattern = os.fsdecode(unquote_to_bytes(pattern))  # `#` and `?` are part of a name
    path = Path(pattern).expanduser()
    if path.is_absolute():
        return path
    return None if root is None else root / path


def _pattern(path: Path) -> str:
    """A pattern whose folders count as they are written where there are such folders: ``[1]`` may be a name."""
    there = next((above for above in path.parents if above.exists()), path)
    return os.path.join(glob.escape(str(there)), path.relative_to(there)) if there != path else str(path)


def alternatives(files: str | Sequence[str]) -> tuple[str, ...]:
    """One pattern or several, as a tuple."""
    return (files,) if isinstance(files, str) else tuple(files)


def locate(files: str | Sequence[str], root: str | os.PathLike | None) -> list[Path]:
    """Files or folders of the first alternative that exists, sorted; empty when none does."""
    for pattern in alternatives(files):
        path = _path(pattern, None if root is None else Path(root))
        if path is None:
            continue
        if path.exists():
            return [path]
        found = sorted(Path(p) for p in glob.glob(_pattern(path), recursive=True))
        if found:
            return found
    return []


def shown(path: str | os.PathLike, root: str | os.PathLike | None) -> str:
    """``path`` as it is written to results: relative to the data root where it lies below it."""
    path = Path(path)
    if root is not None and path.is_relative_to(root):
        return path.relative_to(root).as_posix()
    return path.as_posix()


def printable(name: str | os.PathLike[str]) -> str:
    """A name as text that can be written anywhere: bytes of it that are not UTF-8 as ``\\xe9``."""
    return os.fspath(name).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def instructions(source: Any, target: str | os.PathLike) -> str:
    """How to bring a raw file by hand: path, size, checksums, where from, why, what else would do.

    Args:
        source: with the attributes ``size``, ``checksum``, ``where``, ``urls``, ``reason`` and ``substitutes``.
    """
    facts = ", ".join(([f"{source.size:,} bytes"] if source.size else []) + source.checksum)
    origin = source.where or " or ".join(source.urls)
    return (f"{target}{f' ({facts})' if facts else ''}, from {origin}"
            f"{f'; why: {source.reason}' if source.reason else ''}"
            f"{'; instead of it: ' + ', or '.join(source.substitutes) if source.substitutes else ''}")


def edges(path: Path) -> str:
    """SHA-256 of a file's first and last 64 KiB: what names a file that is too large to be read for that."""
    size = path.stat().st_size
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        digest.update(file.read(_EDGE))
        if size > _EDGE:
            file.seek(max(_EDGE, size - _EDGE))
            digest.update(file.read())
    return digest.hexdigest()
