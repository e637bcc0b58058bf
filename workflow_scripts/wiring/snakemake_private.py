"""What this workflow uses of Snakemake beyond its public interface, in one place.

Each function says why there is no public way; ``tests/wiring/test_snakemake_private.py`` holds them to the pinned
version.
"""

from __future__ import annotations

import functools
import gc
import inspect
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from workflow_scripts.config.load import given, placed
from workflow_scripts.core import fingerprint
from workflow_scripts.core.errors import OODError
from workflow_scripts.wiring.environment import TYPED_IN

SELECTS = "Select jobs to execute"
"""What Snakemake says before it starts jobs, and never in a dry run."""
OF_JOBS = ("job_info", "group_info", "shellcmd", "job_started", "job_finished", "progress", "run_info",
           "resources_info")
"""Kinds of messages that tell of single jobs, or count them (``snakemake_interface_logger_plugins``, ``LogEvent``)."""


def collect_garbage_seldom() -> None:
    """Look for garbage less often: Snakemake keeps every job that it makes, and looking among them takes a tenth of its
    time. (The interface is Python's; it is here because it acts on the whole process, which is Snakemake's.)"""
    gc.set_threshold(100_000, 50, 50)


def remember_signature(function: Callable) -> Callable:
    """The same function, whose parameters are worked out once.

    Snakemake inspects each function of a rule some twenty times for each job, a sixth of a dry run. The attribute is
    Python's (PEP 362); that Snakemake calls with the names it finds there, and no others, is what is relied on.
    """
    @functools.wraps(function)
    def call(*args: Any, **given: Any) -> Any:
        return function(*args, **given)

    call.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return call


def configuration(workflow: Any, config: dict[str, Any], default: Path) -> dict[str, Any]:
    """The configuration, read by ourselves from the files that ``--configfile`` gives.

    A Snakefile sees one merged content, in which the last of two equal keys is left and nothing says beside which file
    a path is. The directive ``configfile`` would also merge a given file into its own, key by key.

    Args:
        config: what a Snakefile sees; it counts where it is ``config:`` of a module, with paths below the folder where
            the workflow runs.
        default: the file where none is given. A given one stands alone.

    Raises:
        OODError: a module without ``config:``, or with a prefix; a file that cannot be read.
    """
    if _is_module(workflow):
        if not config:
            raise OODError("a module of this workflow needs a configuration, and `config:` of the module has none; the "
                           'default run is config: {"include": ["config.yaml"]} (docs/deployment.md)')
        path = "results/x"
        if workflow.modifier.path_modifier.replace_prefix(path) != path:
            raise OODError("prefix and replace_prefix of a module cannot move the results of this workflow, whose jobs "
                           "are told paths below results/{variant}; give another variant in `config:` instead")
        placed_here: dict[str, Any] = placed(config, Path.cwd())
        return placed_here
    files = [Path(file) for file in workflow.overwrite_configfiles] or [default]
    return given(files, workflow.config_settings.config_args, typed_in(workflow))


def refuse_other_code(workflow: Any, root: Path) -> None:
    """Rules and code of one version, which nothing else compares: a job would run with the parameters of the rules and
    the code that Python found first, that of another checkout or of an installed package. (Publicly a Snakefile may ask
    for a source beside itself, but only in its own lines.)

    Args:
        root: folder of the checkout or package whose code was imported.

    Raises:
        OODError: the rules that are being read are not those below ``root``.
    """
    rules = workflow.current_basedir
    place = rules.get_path_or_uri(secret_free=True)
    if Path(place).is_dir():
        if not Path(place).samefile(root / "rules"):
            raise OODError(f"the rules are those of {Path(place).resolve().parent}, but Python imported "
                           f"workflow_scripts from {root}; name one of the two checkouts: see PYTHONPATH, and the "
                           "modules of your Snakefile")
        return
    for path in (root / "rules").glob("*.smk"):  # hosted by a service
        hosted = Path(workflow.sourcecache.get_path(rules.join(path.name)))
        if hosted.read_text("utf-8").split() != path.read_text("utf-8").split():
            raise OODError(f"{place}/{path.name} differs from the rules of the installed package ({root}); install the "
                           "version that the module's tag names (docs/deployment.md)")


def typed_in(workflow: Any) -> Path:
    """The folder where the command was typed, whatever ``--directory`` says: Snakemake goes there before it reads the
    Snakefile, and only the object that took it there knows where from.

    A job that reads the Snakefile again is told by the environment (:mod:`workflow_scripts.wiring.environment`).
    """
    if not workflow.is_main_process and TYPED_IN in os.environ:
        return Path(os.environ[TYPED_IN])
    reader = _reader("WorkflowApi")
    return Path((reader and reader._workdir_handler.olddir) or Path.cwd())


def asked(workflow: Any) -> list[str]:
    """The targets of the command line: a Snakefile is read before its workflow is told of them."""
    reader = None if _is_module(workflow) or not workflow.is_main_process else _reader("DAGApi")
    return sorted(map(str, reader.dag_settings.targets)) if reader else []


def _reader(kind: str) -> Any:
    """The object of Snakemake's interface, among those that are reading this Snakefile."""
    frame = inspect.currentframe()
    while frame is not None:
        if type(frame.f_locals.get("self")).__name__ == kind:
            return frame.f_locals["self"]
        frame = frame.f_back
    return None


def _is_module(workflow: Any) -> bool:
    """Whether this Snakefile is being read as a module of another workflow, whose command line is not ours."""
    return not workflow.modifier.is_main_snakefile()


def group(workflow: Any, name: str) -> Callable[[Any], str | None]:
    """The group of a rule's jobs where the profile makes groups of that name (``group-components``), else none.

    A rule's group is fixed when the Snakefile is read, and the profile is not known then; and the number of connected
    parts in one group job is by the group's name alone, not by a name with wildcards, so each is entered as a child of
    its pattern.
    """
    def of(wildcards: Any) -> str | None:
        settings = workflow.group_settings
        if workflow.remote_exec:
            # inside a Slurm job: what this job's group consists of is one step, its unconnected parts side by side
            settings.group_components = {**settings.group_components, name: sys.maxsize}
        elif name not in settings.group_components:
            return None
        one = name.format(**wildcards)
        workflow.parent_groupids[one] = name
        return one

    return remember_signature(of)


def trainings_per_gpu(workflow: Any) -> int:
    """How many trainings share a GPU: the limit ``trainings_per_gpu`` of the command line or profile, which no job
    takes any of; 1 where there is none. A rule is told of the limits only when a job of it is scheduled.

    Raises:
        OODError: the limit of ``gpu`` is not so many for each GPU.
    """
    limits = {name: workflow.global_resources[name].value for name in ("gpu", "trainings_per_gpu")
              if name in workflow.global_resources}
    each, gpu = limits.get("trainings_per_gpu", 1), limits.get("gpu")
    if each < 1:
        raise OODError(f"trainings_per_gpu: a whole number from 1 on expected, found {each}")
    if each > 1 and (gpu is None or gpu % each):
        raise OODError(f"trainings_per_gpu: with {each} the limit of gpu is {each} for each GPU, found gpu="
                       f"{'(none)' if gpu is None else gpu}; one GPU is --resources gpu={each} "
                       f"trainings_per_gpu={each} (docs/performance.md)")
    return each


def pending(workflow: Any) -> Iterator[tuple[str, Any]]:
    """(rule, wildcards) of each job that is about to run, for ``onstart``, which is told of none."""
    return ((job.rule.name, job.wildcards) for job in workflow.dag.needrun_jobs())


def every(workflow: Any) -> Iterator[dict[str, Any]]:
    """Each job of the graph, whether it is about to run or not."""
    for job in workflow.dag.jobs:
        yield {"rule": job.rule.name, "wildcards": job.wildcards_dict, "inputs": list(map(str, job.input)),
               "outputs": list(map(str, job.output)), "log": str(next(iter(job.log), "")),
               "benchmark": str(job.benchmark or ""), "on_gpu": "gpu" in job.rule.resources}


def due(workflow: Any) -> frozenset[str]:
    """The outputs of the jobs that are about to run."""
    return frozenset(str(name) for job in workflow.dag.needrun_jobs() for name in job.output)


def keep_terminal_short(workflow: Any) -> bool:
    """Keep what Snakemake says of each job (several lines, thousands in a run) off the terminal; its log file has all.

    Not in a dry run, whose purpose it is; nor with ``--printshellcmds`` or ``--verbose``, which ask for it; nor in a
    job, or where another workflow uses this one as a module. Snakemake's own ``--quiet`` would keep it from the log
    file too, and errors with it.

    Returns:
        Whether it is kept off.
    """
    asked = workflow.output_settings
    if _is_module(workflow) or not workflow.is_main_process or asked.dryrun or asked.printshellcmds or asked.verbose:
        return False
    terminal = _terminal()
    if terminal is None:
        return False
    terminal.addFilter(_of_no_single_job)
    return True


def redirect_terminal(stream: TextIO) -> None:
    """Let what Snakemake says on the terminal go to another stream."""
    if (terminal := _terminal()) is not None:
        terminal.setStream(stream)


def _terminal() -> logging.StreamHandler | None:
    """What writes Snakemake's messages to the terminal; ``None`` where a logger plugin does."""
    from snakemake.logging import logger

    return next((one for one in logger.handlers
                 if one.name == "DefaultStreamHandler" and isinstance(one, logging.StreamHandler)), None)


def _of_no_single_job(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or not (
        getattr(record, "event", None) in OF_JOBS or record.getMessage().startswith(SELECTS))


def jobs(words: Sequence[str]) -> dict[str, Any]:
    """All jobs behind targets, and which would run: what a dry run of the same words sees, as data.

    ``jobs``: rule, wildcards, inputs, outputs, log, benchmark, on_gpu of each; ``due``: the outputs of those that would
    run; ``reasons``: (message, reason) of those, where one of them ran before.

    Publicly a dry run tells in its log of the jobs that would run, after formatting all their commands, and nothing of
    the others; of the graph of all, ``--d3dag`` tells the rules alone, and ``--summary`` no wildcards or benchmarks.
    """
    from snakemake import cli
    from snakemake.api import SnakemakeApi
    from snakemake.settings.enums import Quietness
    from snakemake.settings.types import ConfigSettings, DAGSettings, OutputSettings, ResourceSettings

    _, typed = cli.parse_args(list(words))
    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL}, dryrun=True)) as opened:
        api = opened.workflow(
            resource_settings=ResourceSettings(cores=1), snakefile=typed.snakefile, workdir=typed.directory,
            config_settings=ConfigSettings(
                config=cli.parse_config(typed.config), config_args=typed.config or [],
                configfiles=typed.configfile or ()))
        api.dag(DAGSettings(
            targets=set(typed.targets), force_incomplete=typed.rerun_incomplete, rerun_triggers=typed.rerun_triggers,
            max_checksum_file_size=typed.max_checksum_file_size))
        workflow = api._workflow
        workflow._prepare_dag(forceall=False, ignore_incomplete=True, lock_warn_only=True)
        workflow._build_dag()
        found = list(every(workflow))
        due = [job for job in workflow.dag.needrun_jobs() if job.output]
        ran = any(all(map(os.path.exists, map(str, job.output))) for job in due)
        reasons = [[job.message or job.rule.name, str(workflow.dag.reason(job))] for job in due] if ran else []
        return {"jobs": found, "due": [str(name) for job in due for name in job.output], "reasons": reasons}


if __name__ == "__main__":
    _answer = os.path.abspath(sys.argv[1])
    if sys.argv[2] == "list":
        fingerprint.read_nothing()
    _found = json.dumps(jobs(sys.argv[3:]))
    with open(_answer, "w", encoding="utf-8") as _file:
        _file.write(_found)
