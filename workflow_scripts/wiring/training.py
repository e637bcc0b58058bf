"""Jobs that make networks, and what they are trained on: pseudo-masks, selections, outputs of frozen blocks."""

from __future__ import annotations

import os
import re
from types import SimpleNamespace
from typing import Any

from workflow_scripts.config.recipes import Recipe
from workflow_scripts.core.digest import ROOT, digest
from workflow_scripts.core.files import sha256
from workflow_scripts.core.sources import locate
from workflow_scripts.methods.recipe import MethodRecipe, OutlierBatches, Validation
from workflow_scripts.stages.sections.cache_frozen_blocks import CacheFrozenBlocks
from workflow_scripts.stages.sections.import_weights import ImportWeights
from workflow_scripts.stages.sections.make_masks import MakeMasks
from workflow_scripts.stages.sections.select_best_recipe import SelectBestRecipe
from workflow_scripts.stages.sections.select_outliers import SelectOutliers
from workflow_scripts.stages.sections.train_network import TrainNetwork
from workflow_scripts.stages.sections.train_start import TrainStart
from workflow_scripts.wiring import data, paths, sections
from workflow_scripts.wiring.paths import Wildcards
from workflow_scripts.work import starts
from workflow_scripts.work.plan import Plan, Trained
from workflow_scripts.work.starts import Start

# -- trainings ----------------------------------------------------------------------------------------------------


def recipes(plan: Plan, imported: bool = False, chosen: bool = False) -> str:
    """The recipes whose weights are read from a file, chosen, or (neither) trained, as a wildcard's constraint."""
    named = {run.path_name for run in plan.runs.values()
             if (run.recipe.checkpoint is not None, bool(run.among)) == (imported, chosen)}
    return "|".join(map(re.escape, sorted(named))) or "(?!)"


def train_store(plan: Plan, wildcards: Wildcards) -> str:
    """Images to train on: the ID set's, or those of another row in another size."""
    run = plan.run(wildcards)
    return paths.store(plan, run.recipe.images or run.id, "train")


def train_archives(plan: Plan, wildcards: Wildcards) -> list[str]:
    """Archives that the train images are decoded from, where they are not stored."""
    run = plan.run(wildcards)
    return data.decoded_from(plan, [(run.recipe.images or run.id, "train")])


def masks(plan: Plan, wildcards: Wildcards) -> str | list[str]:
    """Pseudo-masks that a recipe trains on, or nothing."""
    run = plan.run(wildcards)
    return paths.of_network(plan, "masks", run, ".h5") if run.recipe.masks else []


def parent(plan: Plan, wildcards: Wildcards) -> str | list[str]:
    """Checkpoint that a recipe starts from, or nothing."""
    run = plan.run(wildcards)
    return paths.of_network(plan, "models", plan.sibling(run, run.parent), ".pt") if run.parent else []


def outliers(plan: Plan, wildcards: Wildcards) -> str | list[str]:
    """Store that a recipe trains against, or nothing."""
    name = plan.run(wildcards).outliers
    return paths.store(plan, name, "train") if name else []


def selection(plan: Plan, wildcards: Wildcards) -> str | list[str]:
    """Numbers of the outliers that a recipe trains against, or nothing where it is all."""
    run = plan.run(wildcards)
    given = run.recipe.outliers
    return paths.of_network(plan, "selection", run, ".h5") if run.outliers and given and given.select else []


def test_images(plan: Plan, wildcards: Wildcards) -> str | list[str]:
    """Store of the ID test images, where a defect reads them in training, or nothing."""
    run = plan.run(wildcards)
    return paths.store(plan, run.id, "test") if sections.of_method(run).reads_test in run.released else []


def tokens(plan: Plan, wildcards: Wildcards) -> str | list[str]:
    """The frozen blocks' output for the ID train images, where a recipe trains on it, or nothing."""
    run = plan.run(wildcards)
    if not run.recipe.frozen_blocks:
        return []
    assert run.parent is not None  # whose blocks they are: config.recipes
    return paths.of_network(plan, "trunk", plan.sibling(run, run.parent), ".h5")


def gpus(plan: Plan, wildcards: Wildcards) -> int:
    """GPUs, or with device cpu processes, that share a training."""
    return plan.config.gpus_of(plan.run(wildcards).recipe)


def sharing(gpus: int, each: int, attempt: int) -> int:
    """Trainings that may be on a training's GPU at once.

    Args:
        gpus: of this training; of several GPUs it has each to itself.
        each: ``trainings_per_gpu``.
        attempt: from 1 on; what failed, as what ran out of memory did, is alone when it is tried again.
    """
    return each if gpus == attempt == 1 else 1


def train_section(plan: Plan, wildcards: Wildcards) -> str:
    """How a network is trained."""
    run = plan.run(wildcards)
    shared = starts.starts(plan).get(run.key)
    return TrainNetwork.of(network=sections.network(run.network), recipe=_recipe(run.recipe), released=run.released,
                           steps=plan.config.limit.steps, start=shared and _start(shared)).dump()


def _recipe(given: Recipe) -> MethodRecipe:
    """What a training reads of a recipe."""
    return MethodRecipe.taken_from(given.model_copy(update={
        "masks": bool(given.masks),  # the pseudo-masks are an input, as are the outliers' store and selection
        "validation": _held_out(given), "outliers": given.outliers and OutlierBatches.taken_from(given.outliers)}))


def train_code(plan: Plan, wildcards: Wildcards) -> dict[str, str]:
    """Code behind a training."""
    run = plan.run(wildcards)
    return digest("stages.train_network", *sections.network_code(run.network), f"methods.{run.recipe.method}")


# -- first epochs that trainings share -----------------------------------------------------------------------------


def start(plan: Plan, wildcards: Wildcards) -> str | list[str]:
    """The first epochs that a training goes on from, or nothing."""
    run = plan.run(wildcards)
    shared = starts.starts(plan).get(run.key)
    return paths.start(plan, shared) if shared else []


def start_inputs(plan: Plan, wildcards: Wildcards) -> dict[str, Any]:
    """Images and parent of first epochs, which are those of one of their trainings."""
    run = starts.named(plan, wildcards).run
    key = SimpleNamespace(**run.key._asdict())
    return {"data": train_store(plan, key), "archives": train_archives(plan, key), "parent": parent(plan, key),
            "test": test_images(plan, key), "tokens": tokens(plan, key)}


def start_section(plan: Plan, wildcards: Wildcards) -> str:
    """How first epochs are trained."""
    return _start(starts.named(plan, wildcards)).dump()


def start_code(plan: Plan, wildcards: Wildcards) -> dict[str, str]:
    """Code behind first epochs."""
    run = starts.named(plan, wildcards).run
    return digest("stages.train_start", *sections.network_code(run.network), f"methods.{run.recipe.method}")


def start_gpus(plan: Plan, wildcards: Wildcards) -> int:
    """GPUs, or with device cpu processes, that share the training of first epochs."""
    return plan.config.gpus_of(starts.named(plan, wildcards).run.recipe)


def _start(shared: Start) -> TrainStart:
    recipe = shared.run.recipe.model_copy(update={"options": dict(shared.options)})
    return TrainStart.of(network=sections.network(shared.run.network), recipe=_recipe(recipe),
                         released=shared.released, epochs=shared.epochs)


def _held_out(recipe: Recipe) -> Validation | None:
    """Held-out images, with the hash of their list."""
    given = recipe.validation
    if given is None:
        return None
    path = ROOT / given.list if given.list else None
    return Validation.of(count=given.count, seed=given.seed, list=given.list,
                         sha256=sha256(path) if path and path.is_file() else None)


# -- choice among recipes -----------------------------------------------------------------------------------------


def select_best_inputs(plan: Plan, wildcards: Wildcards) -> dict[str, Any]:
    """Candidates' checkpoints, ID train images and held-out outliers."""
    run = plan.run(wildcards)
    return {"checkpoints": [paths.of_network(plan, "models", one, ".pt") for one in plan.candidates(run)],
            "data": paths.store(plan, run.id, "train"), "outliers": paths.store(plan, plan.held_out(run), "val")}


def select_best_section(plan: Plan, wildcards: Wildcards) -> str:
    """By what the best network is chosen."""
    run = plan.run(wildcards)
    assert run.recipe.select_best is not None  # the rule's wildcards
    recipe = plan.candidates(run)[0].recipe
    return SelectBestRecipe.of(
        network=sections.network(run.network), candidates=list(run.among), by=run.recipe.select_best.by,
        normalise=recipe.normalise, validation=_held_out(recipe),
        batch_size=plan.config.features.batch_size).dump()


def select_best_code(plan: Plan, wildcards: Wildcards) -> dict[str, str]:
    """Code behind the choice of a network."""
    return digest("stages.select_best_recipe", *sections.network_code(plan.run(wildcards).network))


# -- what trainings read ------------------------------------------------------------------------------------------


def frozen_blocks_section(plan: Plan, wildcards: Wildcards) -> str:
    """How a frozen blocks' output is made."""
    run = plan.run(wildcards)
    return CacheFrozenBlocks.of(network=sections.network(run.network), normalise=sections.evaluated(run),
                         batch_size=plan.config.features.batch_size).dump()


def frozen_blocks_code(plan: Plan, wildcards: Wildcards) -> dict[str, str]:
    """Code behind a frozen blocks' output."""
    return digest("stages.cache_frozen_blocks", *sections.network_code(plan.run(wildcards).network))


def classifier(plan: Plan, wildcards: Wildcards) -> str:
    """Checkpoint of the network that makes the pseudo-masks."""
    return paths.of_network(plan, "models", classifier_of(plan, plan.run(wildcards)), ".pt")


def classifier_of(plan: Plan, run: Trained) -> Trained:
    """The network that makes the pseudo-masks of a run."""
    assert run.classifier is not None  # a recipe with pseudo-masks has one
    return plan.sibling(run, run.classifier)


def masks_section(plan: Plan, wildcards: Wildcards) -> str:
    """How pseudo-masks are made."""
    run = plan.run(wildcards)
    assert run.recipe.masks is not None  # its output is read where a recipe has some
    return MakeMasks.of(network=sections.network(run.network), options=run.recipe.masks.options,
                        normalise=classifier_of(plan, run).recipe.normalise).dump()


def masks_code(plan: Plan, wildcards: Wildcards) -> dict[str, str]:
    """Code behind pseudo-masks."""
    return digest("stages.make_masks", *sections.network_code(plan.run(wildcards).network))


def selection_weights(plan: Plan, wildcards: Wildcards) -> str | list[str]:
    """Training record with the weights that a selection follows, or nothing."""
    run = plan.run(wildcards)
    return paths.of_network(plan, "models", plan.sibling(run, run.weights), ".h5") if run.weights else []


def selection_section(plan: Plan, wildcards: Wildcards) -> str:
    """How outliers are selected."""
    run = plan.run(wildcards)
    given = run.recipe.outliers
    assert given is not None and given.select is not None  # its output is read where a recipe has one
    select = given.select
    own = select.seed is None
    return SelectOutliers.of(rule=select.rule, ratio=select.ratio, size=select.size,
                             seed=run.seed if own else select.seed,
                             stream=f"{run.id}/{run.network.name}/{run.recipe.name}" if own else "").dump()


# -- released weights ---------------------------------------------------------------------------------------------


def import_archive(plan: Plan, wildcards: Wildcards) -> list[str]:
    """Downloaded file of released weights, where it is not below the data root."""
    name = plan.checkpoint_archive(plan.run(wildcards).recipe)
    return [paths.archive(plan, name)] if name else []


def import_file(plan: Plan, wildcards: Wildcards, input: Any) -> str:
    """The file of released weights: downloaded, or as it is called below the data root."""
    given = plan.run(wildcards).recipe.checkpoint
    assert given is not None  # the rule's wildcards
    return os.path.abspath(input.file[0]) if input.file else given.file


def import_section(plan: Plan, wildcards: Wildcards) -> str:
    """How released weights are read."""
    run = plan.run(wildcards)
    given = run.recipe.checkpoint
    assert given is not None  # the rule's wildcards
    raw = None
    if given.sha256 is None and given.git_blob is None:  # another file of the same name is other weights
        raw = plan.fingerprints.of(locate(given.file, plan.data_root), plan.data_root)
    return ImportWeights.of(
        network=sections.network(run.network), raw=raw,
        normalise=sections.evaluated(run) if given.probe else None, **given.model_dump(include={
            "sha256", "git_blob", "key", "strip_prefix", "rename", "drop", "fresh", "probe", "head",
            "background"})).dump()


def import_code(plan: Plan, wildcards: Wildcards) -> dict[str, str]:
    """Code behind released weights."""
    return digest("stages.import_weights", *sections.network_code(plan.run(wildcards).network))
