"""Jobs that make networks, and what they are trained on."""

from __future__ import annotations

import os
import re
from typing import Any

from workflow_scripts.config.recipes import Recipe
from workflow_scripts.core.digest import ROOT, digest
from workflow_scripts.core.files import sha256
from workflow_scripts.core.sources import fingerprint, locate
from workflow_scripts.methods.recipe import MethodRecipe, OutlierBatches, Validation
from workflow_scripts.stages.sections.cache_trunk import CacheTrunk
from workflow_scripts.stages.sections.choose_recipe import ChooseRecipe
from workflow_scripts.stages.sections.import_weights import ImportWeights
from workflow_scripts.stages.sections.make_masks import MakeMasks
from workflow_scripts.stages.sections.select_outliers import SelectOutliers
from workflow_scripts.stages.sections.train_network import TrainNetwork
from workflow_scripts.wiring import sections
from workflow_scripts.wiring.files import Files, Wildcards
from workflow_scripts.work.plan import Trained


class Trainings(Files):
    """Networks, label maps, selections."""

    def parent(self, wildcards: Wildcards) -> str | list:
        """Checkpoint that a recipe starts from, or nothing."""
        run = self.plan.run(wildcards)
        if run.parent is None:
            return []
        return self.file("models", self._sibling(run, run.parent), ".pt")

    def _sibling(self, run: Trained, recipe: str) -> Trained:
        """The run of another recipe for the same ID set, network and seed."""
        return self.plan.runs[run.id, run.network.name, recipe, run.seed]

    def train_section(self, wildcards: Wildcards) -> str:
        run = self.plan.run(wildcards)
        recipe = run.recipe.model_copy(update={
            "masks": bool(run.recipe.masks),  # the label maps are an input, as are the outliers' store and selection
            "validation": self._held_out(run.recipe), "outliers": self._outlier_batches(run.recipe)})
        return TrainNetwork.of(network=sections.network(run.network), recipe=MethodRecipe.taken_from(recipe),
                               released=run.released, steps=self.plan.config.limit.steps).dump()

    def gpus(self, wildcards: Wildcards) -> int:
        """GPUs, or with device cpu processes, that share a training."""
        return self.plan.config.gpus_of(self.plan.run(wildcards).recipe)

    def _held_out(self, recipe: Recipe) -> Validation | None:
        """Held-out images, with the hash of their list; no more than fit into sets that `limit.images` cut."""
        given, images = recipe.validation, self.plan.config.limit.images
        if given is None:
            return None
        if images:
            return Validation.of(count=min(given.count, -(-images // 10)), seed=given.seed)
        path = ROOT / given.list if given.list else None
        return Validation.of(count=given.count, seed=given.seed, list=given.list,
                             sha256=sha256(path) if path and path.is_file() else None)

    def _outlier_batches(self, recipe: Recipe) -> OutlierBatches | None:
        """Batches of outliers that fit into sets that `limit.images` cut."""
        given, images = recipe.outliers, self.plan.config.limit.images
        if given is None:
            return None
        left = given.batch_size
        if images:
            left = max(1, int(images * given.select.ratio / 2)) if given.select else images
        return OutlierBatches.of(batch_size=min(given.batch_size, left), order=given.order)

    def choose_inputs(self, wildcards: Wildcards) -> dict[str, Any]:
        """Candidates' checkpoints, ID train images and held-out outliers."""
        run = self.plan.run(wildcards)
        return {"checkpoints": [self.file("models", one, ".pt") for one in self.plan.candidates(run)],
                "data": self.store(run.id, "train"), "outliers": self.store(self.plan.held_out(run), "val")}

    def choose_section(self, wildcards: Wildcards) -> str:
        run = self.plan.run(wildcards)
        recipe = self.plan.candidates(run)[0].recipe
        return ChooseRecipe.of(
            network=sections.network(run.network), candidates=list(run.among), by=run.recipe.choose.by,
            normalise=recipe.normalise, validation=self._held_out(recipe),
            batch_size=self.plan.config.features.batch_size).dump()

    def choose_code(self, wildcards: Wildcards) -> dict[str, str]:
        return digest("stages.choose_recipe", *sections.network_code(self.plan.run(wildcards).network))

    def tokens(self, wildcards: Wildcards) -> str | list:
        """The frozen trunk's output for the ID train images, where a recipe trains on it, or nothing."""
        run = self.plan.run(wildcards)
        return self.file("trunk", self._sibling(run, run.parent), ".h5") if run.recipe.trunk else []

    def trunk_section(self, wildcards: Wildcards) -> str:
        run = self.plan.run(wildcards)
        return CacheTrunk.of(network=sections.network(run.network), normalise=sections.evaluated(run),
                             batch_size=self.plan.config.features.batch_size).dump()

    def trunk_code(self, wildcards: Wildcards) -> dict[str, str]:
        return digest("stages.cache_trunk", *sections.network_code(self.plan.run(wildcards).network))

    def test_images(self, wildcards: Wildcards) -> str | list:
        """Store of the ID test images, where a defect reads them in training, or nothing."""
        run = self.plan.run(wildcards)
        return self.store(run.id, "test") if sections.of_method(run).reads_test in run.released else []

    def train_store(self, wildcards: Wildcards) -> str:
        """Images to train on: the ID set's, or those of another row in another size."""
        run = self.plan.run(wildcards)
        return self.store(run.recipe.images or run.id, "train")

    def train_archives(self, wildcards: Wildcards) -> list[str]:
        """Archives that the train images are decoded from, where they are not stored."""
        run = self.plan.run(wildcards)
        return self.decoded_from([(run.recipe.images or run.id, "train")])

    def masks(self, wildcards: Wildcards) -> str | list:
        """Label maps that a recipe trains on, or nothing."""
        run = self.plan.run(wildcards)
        return self.file("masks", run, ".h5") if run.recipe.masks else []

    def classifier(self, wildcards: Wildcards) -> str:
        """Checkpoint of the network that makes the label maps."""
        run = self.plan.run(wildcards)
        return self.file("models", self._sibling(run, run.classifier), ".pt")

    def masks_section(self, wildcards: Wildcards) -> str:
        run = self.plan.run(wildcards)
        return MakeMasks.of(
            network=sections.network(run.network), options=run.recipe.masks.options,
            normalise=self._sibling(run, run.classifier).recipe.normalise).dump()

    def masks_code(self, wildcards: Wildcards) -> dict[str, str]:
        return digest("stages.make_masks", *sections.network_code(self.plan.run(wildcards).network))

    def outliers(self, wildcards: Wildcards) -> str | list:
        """Store that a recipe trains against, or nothing."""
        outliers = self.plan.outliers(self.plan.run(wildcards))
        return self.store(outliers, "train") if outliers else []

    def selection(self, wildcards: Wildcards) -> str | list:
        """Numbers of the outliers that a recipe trains against, or nothing where it is all."""
        run = self.plan.run(wildcards)
        select = self.plan.outliers(run) and run.recipe.outliers.select
        return self.file("selection", run, ".h5") if select else []

    def selection_weights(self, wildcards: Wildcards) -> str | list:
        """Training record with the weights that a selection follows, or nothing."""
        run = self.plan.run(wildcards)
        return self.file("models", self._sibling(run, run.weights), ".h5") if run.weights else []

    def selection_section(self, wildcards: Wildcards) -> str:
        run = self.plan.run(wildcards)
        select = run.recipe.outliers.select
        return SelectOutliers.of(rule=select.rule, ratio=select.ratio, size=select.size,
                                 seed=run.seed if select.seed is None else select.seed).dump()

    def recipes(self, imported: bool = False, chosen: bool = False) -> str:
        """The recipes whose weights are read from a file, chosen, or (neither) trained, as a wildcard's constraint."""
        named = {run.path_name for run in self.plan.runs.values()
                 if (run.recipe.checkpoint is not None, bool(run.among)) == (imported, chosen)}
        return "|".join(map(re.escape, sorted(named))) or "(?!)"

    def import_archive(self, wildcards: Wildcards) -> list[str]:
        """Downloaded file of released weights, where it is not below the data root."""
        name = self.plan.checkpoint_archive(self.plan.run(wildcards).recipe)
        return [f"{self.plan.config.resources}/archives/{name}"] if name else []

    def import_file(self, wildcards: Wildcards, input: Any) -> str:
        """The file of released weights: downloaded, or as it is called below the data root."""
        return os.path.abspath(input.file[0]) if input.file else self.plan.run(wildcards).recipe.checkpoint.file

    def import_section(self, wildcards: Wildcards) -> str:
        run = self.plan.run(wildcards)
        given = run.recipe.checkpoint
        raw = None
        if given.sha256 is None:  # another file of the same name is other weights
            raw = [fingerprint(path, self.plan.data_root) for path in locate(given.file, self.plan.data_root)]
        return ImportWeights.of(
            network=sections.network(run.network), raw=raw,
            normalise=sections.evaluated(run) if given.probe else None, **given.model_dump(include={
                "sha256", "key", "strip_prefix", "rename", "drop", "fresh", "probe", "head", "background"})).dump()

    def import_code(self, wildcards: Wildcards) -> dict[str, str]:
        return digest("stages.import_weights", *sections.network_code(self.plan.run(wildcards).network))

    def train_code(self, wildcards: Wildcards) -> dict[str, str]:
        run = self.plan.run(wildcards)
        return digest("stages.train_network", *sections.network_code(run.network), f"methods.{run.recipe.method}")
