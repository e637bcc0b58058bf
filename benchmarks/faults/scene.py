"""A copy of a finished run, its jobs' commands, and what is compared after a fault."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests import checkout
from workflow_scripts.core.files import sha256

LIMIT = 900  # seconds after which any process is given up
EVERY_SECOND = "--save-every 0.01"  # minutes


@dataclass
class Row:
    """One kind of fault: how often it was made to happen, and what came of it."""

    fault: str
    where: str
    times: int = 0
    continued: int = 0
    """How often kept progress was taken up again."""
    lost: list[str] = field(default_factory=list)
    """What was not as in an undisturbed run; empty is what is wanted."""
    left_out: str = ""
    """Why the fault was not made to happen here."""

    def add(self, problems: list[str], continued: bool = False) -> None:
        self.times += 1
        self.continued += continued
        self.lost += problems


class Scene:
    """A copy of a finished default run.

    Args:
        finished: the checkout that holds it.
        folder: where the copy goes.
    """

    def __init__(self, finished: Path, folder: Path):
        self.folder = checkout.copy(folder)
        for part in ("results/small", ".snakemake/metadata"):
            shutil.copytree(finished / part, folder / part)
        self.environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}

    def command(self, target: str) -> str:
        """The shell command of the job that makes ``target``, with its progress kept every second."""
        done = checkout.snakemake(self.folder, "--dry-run", "--printshellcmds", "--cores", "2", "--force", target)
        found = re.findall(r"^Shell command: (.*)$", done.stdout, re.MULTILINE)
        if not found:
            raise SystemExit(f"no job makes {target}:\n{done.stdout[-2000:]}")
        return re.sub(r"--save-every \S+", EVERY_SECOND, found[0])

    def start(self, command: str) -> subprocess.Popen:
        """A command in a process group of its own."""
        return subprocess.Popen(["bash", "-c", command], cwd=self.folder, env=self.environment, start_new_session=True)

    def finish(self, command: str) -> float:
        """Run a command to its end; seconds it took. Ends the program where it fails."""
        began = time.monotonic()
        job = self.start(command)
        if job.wait(LIMIT):
            raise SystemExit(f"failed undisturbed: {command}")
        return time.monotonic() - began

    def workflow(self, *words: str) -> subprocess.Popen:
        """Snakemake in a process group of its own, its output in ``terminal.txt``."""
        with open(self.folder / "terminal.txt", "w") as out:
            return subprocess.Popen([sys.executable, "-m", "snakemake", "--cores", "2", *words], cwd=self.folder,
                                    stdout=out, stderr=subprocess.STDOUT, env=self.environment, start_new_session=True)

    def said(self) -> str:
        return (self.folder / "terminal.txt").read_text()

    def hashes(self, *paths: str) -> dict[str, str]:
        """Path -> sha256, or what is wrong with it."""
        return {path: sha256(file) if (file := self.folder / path).is_file() else "missing" for path in paths}

    def other_than(self, expected: dict[str, str]) -> list[str]:
        """The files whose bits are not these."""
        return [f"{path}: other bits" if found != "missing" else f"{path}: missing"
                for path, found in self.hashes(*expected).items() if found != expected[path]]

    def names(self, *folders: str) -> set[str]:
        """All files below folders."""
        return {path.relative_to(self.folder).as_posix() for folder in folders
                for path in (self.folder / folder).rglob("*") if path.is_file()}


def kill(job: subprocess.Popen, number: int = signal.SIGKILL) -> int:
    """Send a signal to a whole process group; the exit status of its leader."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(job.pid, number)
    return job.wait(LIMIT)


def wait_for(condition: Callable[[], bool], job: subprocess.Popen) -> bool:
    """Wait until something is so; false where the job ended before."""
    while not condition():
        if job.poll() is not None:
            return False
        time.sleep(0.05)
    return True
