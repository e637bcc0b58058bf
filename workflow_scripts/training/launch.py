"""A training by several processes on this machine: starts them, passes signals on, and ends all when one fails."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

import torch

from workflow_scripts.core.errors import OODError
from workflow_scripts.training.resume import SIGNALS


def launch(module: str, words: Sequence[str], count: int, device: str) -> None:
    """Run ``python -m module words`` in ``count`` processes, with ``--rank`` and ``--meeting`` added.

    On GPUs (``device`` is not ``cpu``) each sees one of them. The first one's output is that of the run. When one ends
    with an error, the others are killed and what it said on stderr is passed on; of several that fail together it is
    the first to end.

    Raises:
        SystemExit: with status 1, after the message of the process that failed.
        OODError: there are fewer GPUs; a process was killed.
    """
    seen = [{} for _ in range(count)] if device == "cpu" else _each_its_own(count)
    with tempfile.TemporaryDirectory(prefix="ranks-") as folder:
        said = [Path(folder, f"stderr{rank}") for rank in range(count)]
        ranks, ended = [], queue.Queue()
        before = {number: signal.signal(number, lambda number, frame: _pass_on(ranks, number)) for number in SIGNALS}
        try:
            for rank in range(count):
                ranks.append(_start(module, [*words, "--rank", str(rank), "--meeting", str(Path(folder, "meeting"))],
                                    said[rank], seen[rank], talks=rank == 0))
                threading.Thread(target=lambda rank=rank: ended.put((rank, ranks[rank].wait())), daemon=True).start()
            if hasattr(signal, "pthread_sigmask"):
                signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # held back by the workflow, and so in the ranks
            for _ in range(count):
                rank, status = ended.get()
                if status:
                    break
        finally:
            for process in ranks:
                process.kill()
            for process in ranks:
                process.wait()
            for number, handler in before.items():
                signal.signal(number, handler)
        text = said[rank if status else 0].read_text(encoding="utf-8", errors="replace")
    print(text, end="", file=sys.stderr, flush=True)
    if status < 0:
        raise OODError(f"process {rank + 1} of {count} was killed by {signal.Signals(-status).name}, the others were "
                       "ended; SIGKILL mostly means too little memory, for which the scheduler's log is the place")
    if status:
        raise SystemExit(1)


def _each_its_own(count: int) -> list[dict[str, str]]:
    """What tells each process which GPU it sees. Raises OODError where there are fewer than ``count``."""
    visible = torch.cuda.device_count()
    if count > visible:
        raise OODError(f"gpus: {count} were asked for, torch sees {visible}; lower the key, ask the scheduler for more "
                       f"(resource gpu={count}), or set `device: cpu`, where they are {count} processes")
    names = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return [{"CUDA_VISIBLE_DEVICES": name} for name in (names if names[0] else map(str, range(visible)))]


def _start(module: str, words: Sequence[str], said: Path, sees: dict[str, str], talks: bool) -> subprocess.Popen:
    # They are on one machine: gloo need not ask what its host name means.
    local = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
    with open(said, "wb") as stderr:
        return subprocess.Popen([sys.executable, "-m", module, *words], env={**local, **os.environ, **sees},
                                stdin=subprocess.PIPE, stdout=None if talks else subprocess.DEVNULL, stderr=stderr)


def _pass_on(ranks: Sequence[subprocess.Popen], number: int) -> None:
    for process in ranks:
        process.send_signal(number)


def end_with_parent() -> None:
    """In a process that :func:`launch` started: end when the one that started it is gone, whose pipe then closes."""

    def watch() -> None:
        os.read(0, 1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
