# The checked configuration, the plan of all work, and what many rules have in common.
import os
import shlex
import sys
from functools import partial
from pathlib import Path

try:
    from workflow_scripts.work.expand import read_plan
except ModuleNotFoundError as missing:
    sys.exit(
        f"config: {sys.executable} has no module '{missing.name}'; install the workflow where snakemake is: `uv sync` in "
        "a checkout, or `pip install CHECKOUT` (docs/deployment.md)"
    )

from workflow_scripts.core.digest import ROOT, digest
from workflow_scripts.core.errors import OODError
from workflow_scripts.planning import final_message
from workflow_scripts.wiring import agreement, data, evaluation, paths, pictures, reports, snakemake_private, training
from workflow_scripts.wiring.environment import prepare_environment
from workflow_scripts.wiring.targets import FIGURES, RELIABILITY, check, check_papers, results_of, targets
from workflow_scripts.work.missing import missing_data

TYPED_IN = snakemake_private.typed_in(workflow)
try:
    snakemake_private.refuse_other_code(workflow, ROOT)
    CONFIG = snakemake_private.configuration(workflow, config, ROOT / "config.yaml")
    PLAN = read_plan(CONFIG, ROOT, here=TYPED_IN)
    check_papers(PLAN)
    check(PLAN, snakemake_private.asked(workflow))
    TRAININGS = snakemake_private.trainings_per_gpu(workflow)  # that share a GPU, in the profile
except OODError as error:
    print(*(f"config: {line}" for line in str(error).splitlines()), sep="\n", file=sys.stderr)
    sys.exit(1)

prepare_environment(ROOT, PLAN.data_root, TYPED_IN)
snakemake_private.collect_garbage_seldom()
SHORT = snakemake_private.keep_terminal_short(workflow)  # docs/progress.md
FOLLOWERS = []  # what shows the progress of this run

ENV = "../envs/ood.yaml"
# Below resources with a space or the like; elsewhere the commands that made what is there stay as they are.
QUOTED = ":q" * (shlex.quote(PLAN.config.resources) != PLAN.config.resources)
THREADS = PLAN.config.threads
GPUS = 0 if PLAN.config.device == "cpu" else TRAININGS  # of the resource gpu, what a GPU counts
GROUP = "all" if PLAN.config.features.together else "id"  # of sets that the job with the head passes through a network
RUN = "{id}/{network}/{recipe}/seed{seed}"  # of a trained network
START = "{id}/{network}/{start}/seed{seed}"  # of first epochs

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
    check=r"\w+",
    start=r"[\w-]+",
    paper=r"[\w.-]+",


def of(function, **given):
    """A function of the plan and a job's wildcards, as Snakemake calls it: of(training.parent)."""
    return snakemake_private.remember_signature(partial(function, PLAN, **given))


def grouped(name):
    """The group of a rule's jobs where the profile makes groups (group-components); elsewhere they have none."""
    return snakemake_private.group(workflow, name)


def untracked(value):
    """A parameter whose change reruns nothing: Snakemake compares none that is computed from a job's files."""
    return snakemake_private.remember_signature(lambda wildcards, output: value)


DEVICE = untracked(f"--device {PLAN.config.device}" + " --tf32" * (PLAN.config.tf32 and bool(GPUS)))


def on_gpu(gpus):
    """Resources of a training on so many GPUs, a function of the plan and the wildcards: `gpu`, and how many trainings
    may be on its GPU at once."""

    def trainings(wildcards, attempt):
        return training.sharing(gpus(PLAN, wildcards), TRAININGS, attempt) if GPUS else 1

    def gpu(wildcards, attempt):
        return GPUS * gpus(PLAN, wildcards) // trainings(wildcards, attempt)

    return {"gpu": gpu, "trainings": trainings}


# of a training: what changes rounding at most, and so reruns nothing
TRAINED_ON = untracked(
    f"--device {PLAN.config.device}"
    + " --tf32" * (PLAN.config.tf32 and bool(GPUS))
    + " --no-fused" * (not PLAN.config.fused)
    + f" --compile {PLAN.config.compile}" * (PLAN.config.compile != "no")
)


def flags(*names):
    """Optional files of a job as words of its command: ``--name file`` for each input or output that it has."""

    def words(wildcards, input, output):
        files = ((name, input.get(name) or output.get(name)) for name in names)
        return " ".join(f"--{name.replace('_', '-')} {quoted(found)}" for name, found in files if found)

    def quoted(found):
        return shlex.quote(found) if isinstance(found, str) else shlex.join(found)

    return snakemake_private.remember_signature(words)


def folder_of(name):
    """The folder of an output, which is a file or several."""

    def folder(wildcards, output):
        files = output.get(name, output)
        first = files if isinstance(files, str) else files[0]
        return str(Path(first).parent)

    return folder


def show_progress():
    """From the first job on: bars on a terminal, in a log a line for each paper that is done."""
    if SHORT:
        from workflow_scripts.planning.screen import follow  # draws: only where jobs run

        FOLLOWERS.append(follow(PLAN, workflow))


def end_progress():
    """After the last job, before anything else is said."""
    for follower in FOLLOWERS:
        follower.stop()


def print_results(log):
    """After the last job: the headline table, and where the results page is."""
    print(final_message.success(log, Path(paths.root(PLAN)), PLAN.names), end="", file=sys.stderr)


def print_failures(log):
    """After a failure: which jobs, the last lines of their logs, and the page of what there is."""
    print(final_message.failure(log), end="", file=sys.stderr)
    from workflow_scripts.partial_page import write  # reads templates: only after a failure

    print(final_message.partial_page(PLAN, write), end="", file=sys.stderr)


def check_raw_data():
    """Before the first job: name what is left out, and end with a line for each raw file that is not where these jobs
    expect it."""
    print(*(f"left out: {one}" for one in PLAN.left_out), sep="\n", end="\n" * bool(PLAN.left_out), file=sys.stderr)
    jobs = list(snakemake_private.pending(workflow))
    missing = missing_data(
        PLAN,
        data.raw_splits(PLAN, jobs),
        [PLAN.run(wildcards).recipe for rule, wildcards in jobs if rule == "import_weights"],
    )
    if missing:
        print(*(f"missing: {line}" for line in missing), sep="\n", file=sys.stderr)
        sys.exit(1)
