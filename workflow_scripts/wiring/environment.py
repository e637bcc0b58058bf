"""What jobs inherit from the process that reads the Snakefile."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

TYPED_IN = "OOD_TYPED_IN"
"""Names the folder where the command was typed, which relative paths on a command line lie in."""


def prepare_environment(repository: Path, data_root: Path | None, typed_in: Path) -> None:
    """Let jobs find our package, this Python and the raw data wherever the workflow was started from.

    The only place where the workflow touches its process, when the Snakefile is read; jobs inherit it. A prefix of
    their shell commands would come after what activates an environment of ``--sdm conda``, and undo it.
    """
    os.environ[TYPED_IN] = str(typed_in)
    here = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if str(repository) not in here:
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(repository), *here]))
    folder = Path(sys.executable).parent
    if Path(shutil.which("python") or "").parent != folder:  # started by its path, in no activated environment
        os.environ["PATH"] = os.pathsep.join([str(folder), os.environ.get("PATH", "")])
    if "SLURM_JOB_ID" in os.environ and hasattr(signal, "pthread_sigmask"):
        # Slurm sends it to every process of a job: the snakemakes around a training stay, and the training takes it
        # from when it can keep its progress (Resume.catch_signals), also one that came before that
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    if data_root:
        os.environ["OOD_DATA"] = str(data_root.resolve())
