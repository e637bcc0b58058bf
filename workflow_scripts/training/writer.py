"""One job at a time writes the files of a training, also where a cluster runs the same training twice.

A job may outlive the snakemake that submitted it, and is submitted again by the next one. The file ``{output}.writer``
says who writes, and which run. It is made only where there is none (``O_EXCL``) and touched every few seconds. A second
job waits. If the first one finishes the same run, its result is taken as it is; if it ends or shows no sign of life for
two minutes, the second continues from its progress.

No job removes or replaces the file of another, which a third job could have made anew in that very moment. A job that
takes over makes the file ``{output}.writer.{token of the dead one}``, again with ``O_EXCL``, so that only one of those
that wait succeeds. The last file of this chain names the writer. A writer that ends closes the chain with a successor
of its own, if none has taken over, and removes the chain from its head.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from workflow_scripts.core.errors import OODError

BEAT, DEAD = 10.0, 120.0  # seconds; on a network file system a change may be seen a minute later


class Sign(NamedTuple):
    """One file of the chain."""

    path: Path
    writer: dict[str, Any]
    alive: int
    """When the writer last showed a sign of life (ns, of the file system's clock)."""
    successor: Path
    """The file of the job that takes over from this one."""


class Writer:
    """The right to write the files of one run; a context from getting it, which may wait, to giving it back.

    Args:
        output: the file that the run will write.
        identity: plain values that say which run this is.
        beat: seconds between two signs of life.
        dead: seconds without one after which a writer counts as dead.
    """

    finished = False
    """Another job finished this very run while this one waited for it: nothing is left to do."""

    def __init__(self, output: str | Path, identity: dict[str, Any], beat: float = BEAT, dead: float = DEAD):
        self.output, self.path, self.beat, self.dead = Path(output), Path(f"{output}.writer"), beat, dead
        run = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        self.me = {"host": socket.gethostname(), "pid": os.getpid(), "job": os.environ.get("SLURM_JOB_ID"),
                   "token": uuid.uuid4().hex, "run": run}
        self._ended = threading.Event()

    def __enter__(self) -> Writer:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        before, watched, since = _written(self.output), None, 0.0
        same = False
        while not self._take(self.path):
            if (last := self._last()) is None:
                continue  # it ended between the two looks
            if last != watched:  # a new writer, or a sign of life
                if last.writer and (watched is None or _name(last.writer) != _name(watched.writer)):
                    print(f"{self.output} is being written by {_name(last.writer)}; waiting for it", flush=True)
                watched, since, same = last, time.monotonic(), last.writer.get("run") == self.me["run"]
            if not _is_gone(last.writer) and time.monotonic() - since <= self.dead:
                time.sleep(min(self.beat, 2.0))
            elif self._take(last.successor):
                print(f"{_name(last.writer)} is gone; continuing in its place", flush=True)
                break
        if same and _written(self.output) not in (None, before):
            print(f"{self.output} was finished by {_name(watched.writer)}", flush=True)
            self.finished = True
        threading.Thread(target=self._live, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        chain = self._chain()
        if not chain or chain[-1].writer != self.me:
            return
        closing = chain[-1].successor
        if _make(closing, self.me | {"token": uuid.uuid4().hex}):  # from here on none can take over
            for path in [*(sign.path for sign in chain), closing]:
                path.unlink(missing_ok=True)

    def check(self) -> None:
        """To be called before a file is written.

        Raises:
            OODError: another job took over, because this one showed no sign of life for too long.
        """
        last = self._last()
        if last is None or last.writer != self.me:
            other = _name(last.writer) if last else "no job"
            raise OODError(f"{self.output} is now being written by {other}, since this job was silent for "
                           f"{self.dead:.0f} s; it ends here and writes nothing")

    def _take(self, path: Path) -> bool:
        """Become the writer, by making this file; false: another was quicker."""
        if not _make(path, self.me):
            return False
        last = self._last()
        if last is not None and last.path == path:
            return True
        path.unlink(missing_ok=True)  # the chain that it was to continue has been removed meanwhile
        return False

    def _chain(self) -> list[Sign]:
        """From the first writer to the present one; empty: nobody writes."""
        chain: list[Sign] = []
        path = self.path
        while sign := _read(path, self.path):
            chain.append(sign)
            path = sign.successor
        return chain

    def _last(self) -> Sign | None:
        chain = self._chain()
        return chain[-1] if chain else None

    def _live(self) -> None:
        while not self._ended.wait(self.beat):
            last = self._last()
            if last is None or last.writer != self.me:
                return  # check() says so before the next file
            with suppress(OSError):
                os.utime(last.path)


def _make(path: Path, writer: dict[str, Any]) -> bool:
    """Make this file, unless there is one."""
    try:
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return False
    with open(file, "w", encoding="utf-8") as text:
        json.dump(writer, text)
    return True


def _read(path: Path, first: Path) -> Sign | None:
    try:
        with open(path, encoding="utf-8") as file:  # opening it makes a network file system look again
            writer, status = _parsed(file.read()), os.fstat(file.fileno())
    except FileNotFoundError:
        return None
    token = writer.get("token") or f"unreadable-{status.st_ino}"
    return Sign(path, writer, status.st_mtime_ns, first.with_name(f"{first.name}.{token}"))


def _parsed(text: str) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError):  # being written
        return {}


def _written(path: Path) -> int | None:
    return path.stat().st_mtime_ns if path.exists() else None


def _name(writer: dict[str, Any]) -> str:
    job = f"job {writer['job']}, " if writer.get("job") else ""
    return f"{job}process {writer.get('pid', '?')} on {writer.get('host', '?')}"


def _is_gone(writer: dict[str, Any]) -> bool:
    """Whether it ran on this machine and does no more."""
    if writer.get("host") != socket.gethostname():
        return False
    try:
        os.kill(int(writer["pid"]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False
