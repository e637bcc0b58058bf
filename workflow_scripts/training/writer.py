"""One job at a time writes the files of a training, also where a cluster runs the same training twice.

A job may outlive the snakemake that submitted it, and is submitted again by the next one. The file ``{output}.writer``
says who writes, and which run. It is made only where there is none (``O_EXCL``) and touched every few seconds. A second
job waits. If the first one finishes the same run, its result is taken as it is; if it ends or shows no sign of life for
two minutes, the second goes on from its progress.
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
from typing import Any

from workflow_scripts.core.errors import OODError

BEAT, DEAD = 10.0, 120.0  # seconds; on a network file system a change may be seen a minute later


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
        while not self._take():
            if (marker := self._read()) is None:
                continue  # it ended between the two reads
            if marker != watched:  # a new writer, or a sign of life
                if watched is None or marker[0] != watched[0]:
                    print(f"{self.output} is being written by {_name(marker[0])}; waiting for it", flush=True)
                watched, since, same = marker, time.monotonic(), marker[0].get("run") == self.me["run"]
            if _is_gone(marker[0]) or time.monotonic() - since > self.dead:
                print(f"{_name(marker[0])} is gone; going on in its place", flush=True)
                self._remove(marker[0])
            else:
                time.sleep(min(self.beat, 2.0))
        if same and _written(self.output) not in (None, before):
            print(f"{self.output} was finished by {_name(watched[0])}", flush=True)
            self.finished = True
        threading.Thread(target=self._live, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        if (marker := self._read()) and marker[0] == self.me:
            self.path.unlink(missing_ok=True)

    def check(self) -> None:
        """To be called before a file is written.

        Raises:
            OODError: another job took over, because this one showed no sign of life for too long.
        """
        marker = self._read()
        if marker is None or marker[0] != self.me:
            other = _name(marker[0]) if marker else "no job"
            raise OODError(f"{self.output} is now being written by {other}, since this job was silent for "
                           f"{self.dead:.0f} s; it ends here and writes nothing")

    def _take(self) -> bool:
        try:
            file = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            return False
        with open(file, "w", encoding="utf-8") as text:
            json.dump(self.me, text)
        return True

    def _read(self) -> tuple[dict[str, Any], int] | None:
        """Who writes and when it last showed a sign of life (ns, of the file system's clock); ``None``: nobody."""
        try:
            with open(self.path, encoding="utf-8") as file:  # opening it makes a network file system look again
                return _parsed(file.read()), os.fstat(file.fileno()).st_mtime_ns
        except FileNotFoundError:
            return None

    def _live(self) -> None:
        while not self._ended.wait(self.beat):
            marker = self._read()
            if marker is None or marker[0] != self.me:
                return  # check() says so before the next file
            with suppress(OSError):
                os.utime(self.path)

    def _remove(self, writer: dict[str, Any]) -> None:
        """Remove the file of a dead writer; one that a third job has made in its place meanwhile is put back."""
        marker = self._read()
        if marker is None or marker[0] != writer:  # others were waiting too, and one was quicker
            return
        aside = self.path.with_name(f"{self.path.name}.{self.me['token']}")
        try:
            os.rename(self.path, aside)
        except FileNotFoundError:
            return
        if _parsed(aside.read_text(encoding="utf-8")) != writer and not self.path.exists():
            os.rename(aside, self.path)
        aside.unlink(missing_ok=True)


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
