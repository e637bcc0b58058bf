"""Progress of an unfinished training, beside its output: an interrupted run is continued as if nothing had happened.

The file ``{output}.resume`` is replaced as a whole every few minutes and when the process is told to stop (SIGTERM,
SIGUSR1); it goes when the training is done. It carries the identity of its run: configuration, code, inputs, seed,
threads. Progress of another run is not continued. Of several processes that train one network the first one writes, all
read, and all stop after the same step, whichever was told to; how many there are may change when a run goes on.
"""

from __future__ import annotations

import pickle
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.files import atomic
from workflow_scripts.training.ranks import ALONE, Ranks

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))


class Resume:
    """Keeps and restores the progress of one run.

    Args:
        output: the file that the run will write.
        identity: plain values that say which run this is.
        minutes: between two writings; 0: after every step.
        ranks: the processes that train together.
        check: called before a writing; an error that it raises ends the run.
    """

    def __init__(self, output: str | Path, identity: dict[str, Any], minutes: float, ranks: Ranks = ALONE,
                 check: Callable[[], None] = lambda: None):
        self.path = Path(f"{output}.resume")
        self.identity, self.seconds, self.ranks, self.check = identity, 60 * minutes, ranks, check
        self.stopped_by = self._agreed = 0  # numbers of signals: what came here, what all ranks know of
        self._last = time.monotonic()

    def catch_signals(self) -> None:
        """From now on a signal to stop ends the run after the step it is at, with its progress kept."""
        for number in SIGNALS:
            signal.signal(number, self._stop)
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # the workflow holds SIGUSR1 back until now

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopped_by = number

    def load(self) -> dict[str, Any] | None:
        """Progress of an earlier try, or ``None``; one of another run, or that cannot be read, is named and left."""
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True)
            found, progress = content["identity"], content["progress"]
        except FileNotFoundError:
            return None
        except (RuntimeError, EOFError, ValueError, KeyError, TypeError, pickle.UnpicklingError) as error:
            print(f"{self.path} cannot be read ({str(error).splitlines()[0]}); training starts from the beginning")
            return None
        if found != self.identity:
            changed = sorted(k for k in found.keys() | self.identity if found.get(k) != self.identity.get(k))
            print(f"{self.path} is of another run ({', '.join(changed)} changed); training starts from the beginning",
                  flush=True)
            return None
        print(f"going on after epoch {progress['epoch']}, step {progress['step']}", flush=True)
        return progress

    def due(self) -> bool:
        """Whether progress is to be written now; the same answer for all ranks."""
        late = int(time.monotonic() - self._last >= self.seconds)
        self._agreed, late = self.ranks.largest(self.stopped_by, late)
        return bool(self._agreed or late)

    def save(self, progress: dict[str, Any]) -> None:
        """Write progress; ends the run if it was told to stop. What to do is what :meth:`due` found.

        Raises:
            OODError: after writing, when a signal came.
        """
        if self.ranks.rank == 0:
            self.check()
            with atomic(self.path) as partial, open(partial, "wb") as file:
                torch.save({"identity": self.identity, "progress": progress}, file)
        self.ranks.wait()
        self._last = time.monotonic()
        if self._agreed:
            raise OODError(f"stopped by {signal.Signals(self._agreed).name} after epoch {progress['epoch']}, "
                           f"step {progress['step']}; "
                           f"progress is in {self.path}, run again to go on")

    def done(self) -> None:
        """Remove the progress of a finished run."""
        self.path.unlink(missing_ok=True)
