"""From the plan to the workflow: files, inputs, parameters and code digests of jobs, by wildcards.

The rules hold no logic; what they need is a method of :class:`Wiring`. Sections of the configuration are passed to jobs
as one JSON text each, which Snakemake compares: a job reruns exactly when its section, its code or an input changed.
"""

from __future__ import annotations

import inspect
import os
import shutil
import signal
import sys
from pathlib import Path

from workflow_scripts.wiring.data import Data
from workflow_scripts.wiring.evaluation import Evaluation
from workflow_scripts.wiring.files import FIGURES, FILES, RELIABILITY, Wildcards
from workflow_scripts.wiring.reports import Reports
from workflow_scripts.wiring.snakemake_private import remember_signature
from workflow_scripts.wiring.training import Trainings
from workflow_scripts.work.plan import Plan

__all__ = ["FIGURES", "FILES", "RELIABILITY", "Wildcards", "Wiring", "prepare_environment"]


def prepare_environment(repository: Path, data_root: Path | None) -> None:
    """Let jobs find our package, this Python and the raw data wherever the workflow was started from.

    The only place where the workflow touches its process, when the Snakefile is read; jobs inherit it. A prefix of
    their shell commands would come after what activates an environment of ``--sdm conda``, and undo it.
    """
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


class Wiring(Data, Trainings, Evaluation, Reports):
    """Files and parameters of the jobs of a plan."""

    def __init__(self, plan: Plan, results: str = "results"):
        super().__init__(plan, results)
        for name, method in inspect.getmembers(type(self), inspect.isfunction):
            if "wildcards" in inspect.signature(method).parameters:
                setattr(self, name, remember_signature(getattr(self, name)))
