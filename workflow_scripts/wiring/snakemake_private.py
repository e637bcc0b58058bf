"""What this workflow uses of Snakemake beyond its public interface, in one place.

Each function says why there is no public way; ``tests/test_snakemake_private.py`` holds them to the pinned version.
"""

from __future__ import annotations

import gc
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_OF_WILDCARDS = inspect.Signature([inspect.Parameter("wildcards", inspect.Parameter.POSITIONAL_OR_KEYWORD)])


def collect_garbage_seldom() -> None:
    """Look for garbage less often: Snakemake keeps every job that it makes, and looking among them again and again takes
    a tenth of its time. (Python's interface is public; that this is a process of Snakemake's is what is assumed.)"""
    gc.set_threshold(100_000, 50, 50)


def stands_alone(workflow: Any, config: dict[str, Any]) -> bool:
    """Whether the configuration is given as a whole, by ``--configfile`` or as ``config:`` of a module, so that nothing
    of ``config.yaml`` reaches it.

    The directive ``configfile`` would merge a given file into its own, key by key; publicly nothing tells a file from
    ``--config key=value``, which does go over ``config.yaml``.
    """
    return bool(config) if _is_module(workflow) else bool(workflow.overwrite_configfiles)


def place_of_configuration(workflow: Any) -> Path | None:
    """The folder of the file given by ``--configfile``, for paths in it that begin with ``./``; else ``None``.

    A Snakefile sees the content of such files, not their names.
    """
    if _is_module(workflow) or not workflow.overwrite_configfiles:
        return None
    return Path(workflow.overwrite_configfiles[-1]).absolute().parent


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

    of.__signature__ = _OF_WILDCARDS  # said once: Snakemake inspects it several times for each job
    return of


def pending(workflow: Any) -> Iterator[tuple[str, Any]]:
    """(rule, wildcards) of each job that is about to run, for ``onstart``, which is told of none."""
    return ((job.rule.name, job.wildcards) for job in workflow.dag.needrun_jobs())
