"""What a raw file must be: its size, its published checksums, or what the first download recorded.

A checksum is written ``sha256:<64 hex digits>``, ``md5:<32 hex digits>`` or ``git:<40 hex digits>``, of a list of
images also ``lines:`` or ``paths:<64 hex digits>``. Where none is published, the lock file (JSON: file name -> sha256,
size, url) takes down what the first download brought; later runs compare with it. Runs may share the lock file: it is
replaced whole, under a file lock. It is a memory, not an input of any rule.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.files import CHECKSUM, atomic, digests, sha256
from workflow_scripts.core.locks import file_lock


@dataclass(frozen=True)
class Expected:
    """What is known of a file before it is there."""

    name: str
    """The file's name, its key in the lock file."""
    size: int | None = None
    """Bytes; None: not known."""
    checksums: tuple[str, ...] = ()
    """Published checksums; all must hold."""
    lock: Path | None = None
    """Lock file, used where there is no published checksum."""

    def __post_init__(self) -> None:
        for checksum in self.checksums:
            if not re.match(CHECKSUM, checksum):
                raise OODError(f"{self.name}: checksum '{checksum}' is not of the form sha256:<64 hex digits>, "
                               "md5:<32 hex digits> or git:<40 hex digits> (lower case)")

    @property
    def known(self) -> bool:
        """Whether a whole file can be told from a damaged one."""
        return bool(self.checksums or self.recorded())

    def recorded(self) -> dict:
        """The lock file's entry for this file; empty where there is none or a published checksum rules."""
        return {} if self.checksums or self.lock is None else read_lock(self.lock).get(self.name, {})

    def problem(self, path: Path) -> str:
        """What is wrong with the file at ``path``: expected and found; empty if nothing is."""
        size = path.stat().st_size
        recorded = self.recorded()
        wanted = [("", self.size)] + ([(f" (recorded in {self.lock} by the first download)", recorded["size"])]
                                      if recorded else [])
        for source, expected in wanted:
            if expected not in (None, size):
                return f"{expected:,} bytes expected{source}, found {size:,}"
        checksums = self.checksums or ((f"sha256:{recorded['sha256']}",) if recorded else ())
        found = digests(path, {checksum.split(":")[0] for checksum in checksums})
        for checksum in checksums:
            kind, digest = checksum.split(":")
            if found[kind] != digest:
                return f"{kind} {digest} expected{wanted[-1][0] if recorded else ''}, found {found[kind]}"
        return ""

    def record(self, path: Path, url: str) -> None:
        """Take down a file that nothing is known of yet; a file recorded before or published is left alone."""
        if self.lock is None or self.checksums:
            return
        self.lock.parent.mkdir(parents=True, exist_ok=True)
        entry = {"sha256": sha256(path), "size": path.stat().st_size, "url": url}
        with file_lock(self.lock.with_name(f".{self.lock.name}.lock")):
            entries = read_lock(self.lock)
            if self.name in entries:
                return
            entries[self.name] = entry
            with atomic(self.lock) as partial:
                partial.write_text(json.dumps(entries, indent=2, sort_keys=True) + "\n", encoding="utf-8")

    def described(self) -> str:
        """``"64,275,384 bytes, md5:eb5a..."``: size and checksums for messages; empty where nothing is known."""
        return ", ".join(([f"{self.size:,} bytes"] if self.size else []) + list(self.checksums))


def read_lock(path: str | os.PathLike) -> dict[str, dict]:
    """Entries of a lock file; empty when there is no such file.

    Raises:
        OODError: the file is not what :meth:`Expected.record` writes.
    """
    try:
        entries = json.loads(Path(path).read_text(encoding="utf-8"))
        if all({"sha256", "size"} <= set(entry) for entry in entries.values()):
            return entries
        problem = "an entry has no sha256 or size"
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError, TypeError) as error:
        problem = str(error)
    raise OODError(f"{path}: not a lock file of checksums ({problem}); restore it, or delete it and the next downloads "
                   "record anew")
