"""From the plan to the workflow: files, inputs, parameters and code digests of jobs, by wildcards.

The rules hold no logic; what they need is a method of :class:`Wiring`. Sections of the configuration are passed to jobs
as one JSON text each, which Snakemake compares: a job reruns exactly when its section, its code or an input changed.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

from workflow_scripts.config.wiring.data import Data
from workflow_scripts.config.wiring.evaluation import Evaluation
from workflow_scripts.config.wiring.files import FIGURES, FILES, RELIABILITY, Wildcards
from workflow_scripts.config.wiring.reports import Reports
from workflow_scripts.config.wiring.training import Trainings

__all__ = ["FIGURES", "FILES", "RELIABILITY", "Wildcards", "Wiring", "prepare_environment"]


def prepare_environment(repository: Path, data_root: Path | None) -> None:
    """Let jobs find our package, this Python and the raw data wherever the workflow was started from."""
    paths = [str(repository), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    if threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGUSR1"):
        # Slurm sends it to all processes of a job: a training keeps its progress, the snakemakes around it stay
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if data_root:
        os.environ["OOD_DATA"] = str(data_root.resolve())


class Wiring(Data, Trainings, Evaluation, Reports):
    """Files and parameters of the jobs of a plan."""
