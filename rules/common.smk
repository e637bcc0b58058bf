# The checked configuration, the plan of all work, and what the rules ask of it.
import os
import re
import sys
from pathlib import Path

sys.path.insert(0, str(workflow.basedir))

from workflow_scripts.digest import digest
from workflow_scripts.errors import OODError
from workflow_scripts.config.expand import FIGURES, dumps, read_plan

# A file given by --configfile stands alone: nothing of config.yaml reaches it.
ALONE = bool(workflow.overwrite_configfiles)
try:
    PLAN = read_plan(
        workflow.config_settings.overwrite_config if ALONE else config,
        Path(workflow.basedir),
    )
except OODError as error:
    print(*(f"config: {line}" for line in str(error).splitlines()), sep="\n", file=sys.stderr)
    sys.exit(1)

VARIANT = PLAN.config.variant
RESULTS = f"results/{VARIANT}"
THREADS = PLAN.config.threads
DEVICE = PLAN.config.device
GPUS = 0 if DEVICE == "cpu" else 1

# Jobs find our package, this Python and the raw data wherever the workflow was started from.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(workflow.basedir), os.environ.get("PYTHONPATH")]))
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
if PLAN.data_root:
    os.environ["OOD_DATA"] = str(PLAN.data_root)


wildcard_constraints:
    dataset=r"[\w-]+",
    split=r"train|test",
    id=r"[\w-]+",
    network=r"[\w.-]+",
    recipe=r"[\w.+-]+",
    seed=r"\d+",
    score=r"[\w.-]+",
    paper=r"[\w.-]+",


# -- files and sections of one trained network ---------------------------------------------------------------------


def run_path(kind, run, rest):
    """A file of one trained network: results/variant/kind/id/network/recipe/seedN + rest."""
    return f"{RESULTS}/{kind}/{run.id}/{run.network.name}/{run.path_name}/seed{run.seed}{rest}"


def parent_checkpoint(wildcards):
    run = PLAN.run(wildcards)
    return run_path("models", PLAN.runs[run.id, run.network.name, run.parent, run.seed], ".pt") if run.parent else []


def training_code(wildcards):
    run = PLAN.run(wildcards)
    return digest("train", f"models.{run.network.model}", f"methods.{run.recipe.method}")


def feature_code(wildcards):
    return digest("features", f"models.{PLAN.run(wildcards).network.model}")


def feature_section(sets):
    return lambda wildcards: PLAN.features_section(wildcards, sets)


def score_inputs(wildcards):
    run = PLAN.run(wildcards)
    needs = PLAN.needs(run, wildcards.score)
    inputs = {
        "sets": [run_path("features", run, f"/{dataset}.{split}.h5") for dataset, split in PLAN.sets(run.id)[1:]],
    }
    if needs & {"head", "batchnorm"}:
        inputs["head"] = run_path("features", run, "/head.h5")
    if needs & {"train_features", "train_logits", "train_labels"}:
        inputs["train"] = run_path("features", run, f"/{run.id}.train.h5")
    if "statistics" in needs:
        inputs["statistics"] = run_path("precompute", run, ".h5")
    return inputs


# -- sections of a paper's table, figures and manifest ----------------------------------------------------------------


def paper_metrics(wildcards):
    return [run_path("metrics", run, ".csv") for run in PLAN.reported(wildcards.paper)]


def paper_scores(wildcards):
    runs = PLAN.reported(wildcards.paper)
    return [run_path("scores", run, f"/{score}.h5") for run in runs for score in run.scores]


def paper_checkpoints(wildcards):
    return [run_path("models", run, ".pt") for run in PLAN.reported(wildcards.paper)]


def paper_stores(wildcards):
    ids = {run.id for run in PLAN.reported(wildcards.paper)}
    return [store_path(dataset, split) for id in sorted(ids) for dataset, split in PLAN.sets(id)]


def store_path(dataset, split):
    return f"{RESULTS}/data/{dataset}.{split}.h5"


def paper_path(paper, kind):
    """A file of a paper: its table (csv, md), its manifest, or a figure by its file name."""
    if kind in ("csv", "md"):
        return f"{RESULTS}/tables/{paper}.{kind}"
    return f"{RESULTS}/tables/{paper}.manifest.json" if kind == "manifest" else f"{RESULTS}/figures/{paper}/{kind}"


def table_section(wildcards):
    return dumps(PLAN.table_section(wildcards.paper, lambda run: run_path("metrics", run, ".csv")), ordered=True)


def figure_section(wildcards):
    return dumps(
        PLAN.table_section(
            wildcards.paper,
            lambda run: run_path("metrics", run, ".csv"),
            lambda run, score: run_path("scores", run, f"/{score}.h5"),
        ),
        ordered=True,
    )
