# The checked configuration, the plan of all work, and its wiring into jobs.
import gc
import inspect
import os
import re
import sys
from pathlib import Path

sys.path.insert(0, str(workflow.basedir))

from workflow_scripts.planning import ending
from workflow_scripts.work.expand import read_plan
from workflow_scripts.wiring import FIGURES, FILES, RELIABILITY, Wiring, prepare_environment
from workflow_scripts.core.digest import digest
from workflow_scripts.core.errors import OODError

# Snakemake keeps every job that it makes: looking for garbage among them again and again takes a tenth of its time.
gc.set_threshold(100_000, 50, 50)

try:
    # a file given by --configfile stands alone: nothing of config.yaml reaches it
    PLAN = read_plan(
        workflow.config_settings.overwrite_config if workflow.overwrite_configfiles else config,
        Path(workflow.basedir),
        place=Path(workflow.overwrite_configfiles[-1]).absolute().parent if workflow.overwrite_configfiles else None,
    )
except OODError as error:
    print(*(f"config: {line}" for line in str(error).splitlines()), sep="\n", file=sys.stderr)
    sys.exit(1)

WIRE = Wiring(PLAN)
THREADS = PLAN.config.threads
GPUS = 0 if PLAN.config.device == "cpu" else 1
DEVICE = PLAN.config.device + "+tf32" * (PLAN.config.tf32 and GPUS)
prepare_environment(Path(workflow.basedir), PLAN.data_root)

# an image of the environment, for --sdm apptainer (docs, cluster)
if image := os.environ.get("OOD_IMAGE"):

    container: image


wildcard_constraints:
    archive=r"[\w.-]+",
    dataset=r"[\w-]+",
    split=r"train|val|test",
    id=r"[\w-]+",
    network=r"[\w.-]+",
    recipe=r"[\w.+-]+",
    seed=r"\d+",
    score=r"[\w.-]+",
    paper=r"[\w.-]+",


# said once: Snakemake asks several times for each job
OF_WILDCARDS = inspect.Signature([inspect.Parameter("wildcards", inspect.Parameter.POSITIONAL_OR_KEYWORD)])


def grouped(name, **fixed):
    """The group of a rule's jobs where the profile makes groups (group-components); elsewhere they have none.

    ``fixed`` are values of the name that are no wildcards of the rule.
    """

    def group(wildcards):
        settings = workflow.group_settings  # the profile's, which is not known when this file is read
        if workflow.remote_exec:
            # inside a Slurm job: what this job's group consists of is one step, its unconnected parts side by side
            settings.group_components = {**settings.group_components, name: sys.maxsize}
        elif name not in settings.group_components:
            return None
        one = name.format(**fixed, **wildcards)
        workflow.parent_groupids[one] = name
        return one

    group.__signature__ = OF_WILDCARDS
    return group


def print_results(log):
    """After the last job: the headline table, and where the results page is."""
    print(ending.success(log, Path(WIRE.root), PLAN.names), end="", file=sys.stderr)


def print_failures(log):
    """After a failure: which jobs, the last lines of their logs, and the page of what there is."""
    print(ending.failure(log), end="", file=sys.stderr)
    print(ending.partial_page(WIRE), end="", file=sys.stderr)


def check_raw_data():
    """Before the first job: end with a line for each raw file that is not where these jobs expect it."""
    jobs = list(workflow.dag.needrun_jobs())
    missing = PLAN.missing_data(
        WIRE.raw_splits((job.rule.name, job.wildcards) for job in jobs),
        [PLAN.run(job.wildcards).recipe for job in jobs if job.rule.name == "import_weights"],
    )
    if missing:
        print(*(f"missing: {line}" for line in missing), sep="\n", file=sys.stderr)
        sys.exit(1)
