"""Jobs from trained networks to metrics."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from workflow_scripts.config.models import Score
from workflow_scripts.core.digest import digest
from workflow_scripts.stages.sections.choose_options import ChooseOptions
from workflow_scripts.stages.sections.compute_metrics import ComputeMetrics
from workflow_scripts.stages.sections.extract_features import ExtractFeatures
from workflow_scripts.stages.sections.fuse_scores import FuseScores
from workflow_scripts.stages.sections.import_scores import ImportScores
from workflow_scripts.stages.sections.make_panels import MakePanels
from workflow_scripts.stages.sections.measure_distances import MeasureDistances
from workflow_scripts.stages.sections.score_network import ScoreNetwork
from workflow_scripts.stages.sections.score_sets import ScoreSets
from workflow_scripts.wiring import sections
from workflow_scripts.wiring.files import Files, Wildcards
from workflow_scripts.wiring.snakemake_private import remember_signature
from workflow_scripts.work.plan import Taken, Trained


class Evaluation(Files):
    """Features, scores, metrics, and what pictures need of them."""

    def _pass(self, run: Trained) -> dict[str, Any]:
        """What a section of a forward pass is made of."""
        return {"network": sections.network(run.network), "normalise": sections.evaluated(run),
                "batch_size": self.plan.config.features.batch_size}

    def feature_files(self, group: str) -> list[str]:
        """Names of the features files that a group's job writes, with ``{id}`` for the ID set's."""
        return [*(["{id}.train", "{id}.test"] if group != "ood" else []), *(["ood"] if group != "id" else [])]

    def feature_stores(self, group: str) -> Callable[[Wildcards], list[str]]:
        """Stores of the sets that a group's job passes through a network."""
        return remember_signature(
            lambda wildcards: [self.store(*pair) for pair in self._feature_sets(wildcards, group)])

    def feature_archives(self, group: str) -> Callable[[Wildcards], list[str]]:
        """Archives that those images are decoded from, where they are not stored."""
        return remember_signature(lambda wildcards: self.decoded_from(self._feature_sets(wildcards, group)))

    def _feature_sets(self, wildcards: Wildcards, group: str) -> list[tuple[str, str]]:
        """The ID set's two splits (``id``), the other sets (``ood``), or ``all``."""
        sets = self.plan.sets(self.plan.run(wildcards).id)
        return {"id": sets[:2], "ood": sets[2:], "all": sets}[group]

    def features_section(self, group: str) -> Callable[[Wildcards], str]:
        def section(wildcards: Wildcards) -> str:
            run = self.plan.run(wildcards)
            return ExtractFeatures.of(
                **self._pass(run), sets=[f"{d}.{s}" for d, s in self._feature_sets(wildcards, group)],
                precision=self.plan.config.features.precision).dump()

        return remember_signature(section)

    def features_code(self, wildcards: Wildcards) -> dict[str, str]:
        return digest("stages.extract_features", *sections.network_code(self.plan.run(wildcards).network))

    def scores(self, network: bool = False, fused: bool = False) -> str:
        """The scores that run a network, those that join others, or the rest, as the constraint of a wildcard."""
        named = {name for run in self.plan.runs.values() for name in run.scores
                 if [kind in self.plan.needs(run, name) for kind in ("network", "scores")] == [network, fused]}
        return "|".join(map(re.escape, sorted(named))) or "(?!)"

    def score_inputs(self, wildcards: Wildcards) -> dict[str, Any]:
        """Features of every test set, and what else the score needs."""
        run = self.plan.run(wildcards)
        needs = self.plan.needs(run, wildcards.score)
        inputs: dict[str, Any] = {"sets": self.features(run, *self._scored(run, wildcards.score))}
        if needs & {"head", "batchnorm"}:
            inputs["head"] = self.file("features", run, "/head.h5")
        if needs & {"train_features", "train_logits", "train_labels", "train_background", "shuffled"}:
            inputs["train"] = self.train_features(run)
        if "statistics" in needs:
            inputs["statistics"] = self.file("precompute", run, ".h5")
        if run.scores[wildcards.score].choose is not None:
            inputs["choice"] = self.file("sweep", run, f"/{wildcards.score}.json")
        return inputs

    def _scored(self, run: Trained, score: str) -> list[tuple[str, str]]:
        """Sets that a score is computed of: the test sets, and the ID train set where a joined score needs it."""
        train, *tests = self.plan.sets(run.id)
        return [*tests, *([train] if score in self.plan.joined(run) else [])]

    def fused_inputs(self, wildcards: Wildcards) -> dict[str, str]:
        """The two scores that a joined score is made of."""
        run = self.plan.run(wildcards)
        options = sections.options("scores", run.scores[wildcards.score].module, run.scores[wildcards.score].options)
        return {"foreground": self.file("scores", run, f"/{options['base']}.h5"),
                "background": self.file("scores", run, f"/{options['background']}.h5")}

    def fused_section(self, wildcards: Wildcards) -> str:
        run = self.plan.run(wildcards)
        score = run.scores[wildcards.score]
        return FuseScores.of(**_scored(score), train=f"{run.id}.train").dump()

    def fused_code(self, wildcards: Wildcards) -> dict[str, str]:
        return digest("stages.fuse_scores", sections.score_code(self.plan.run(wildcards).scores[wildcards.score]))

    def network_score_inputs(self, wildcards: Wildcards) -> dict[str, Any]:
        """Stores of every test set, and the train images where the score learns from them."""
        run = self.plan.run(wildcards)
        tests = self._scored(run, wildcards.score)
        inputs: dict[str, Any] = {"stores": [self.store(*pair) for pair in tests]}
        if "train_labels" in self.plan.needs(run, wildcards.score):
            inputs["train_store"] = self.store(run.id, "train")
        pairs = [*tests, (run.id, "train")] if "train_store" in inputs else tests
        return inputs | ({"archives": archives} if (archives := self.decoded_from(pairs)) else {})

    def network_score_section(self, wildcards: Wildcards) -> str:
        run = self.plan.run(wildcards)
        score = run.scores[wildcards.score]
        return ScoreNetwork.of(**_scored(score), **self._pass(run),
                               sets=[f"{d}.{s}" for d, s in self._scored(run, wildcards.score)]).dump()

    def network_score_code(self, wildcards: Wildcards) -> dict[str, str]:
        run = self.plan.run(wildcards)
        return digest("stages.score_network", sections.score_code(run.scores[wildcards.score]),
                      *sections.network_code(run.network))

    def sweep_section(self, wildcards: Wildcards) -> str:
        run = self.plan.run(wildcards)
        score = run.scores[wildcards.score]
        return ChooseOptions.of(**self._pass(run), score=score.module, options=score.choose.sweep).dump()

    def sweep_inputs(self, wildcards: Wildcards) -> dict[str, str]:
        """What the score's options are chosen with: class means, or the ID train features."""
        run = self.plan.run(wildcards)
        kind = sections.chosen_with(run.scores[wildcards.score])
        return {kind: self.train_features(run) if kind == "train" else self.file("precompute", run, ".h5")}

    def sweep_code(self, wildcards: Wildcards) -> dict[str, str]:
        run = self.plan.run(wildcards)
        return digest("stages.choose_options", sections.score_code(run.scores[wildcards.score]),
                      *sections.network_code(run.network))

    def score_section(self, wildcards: Wildcards) -> str:
        run = self.plan.run(wildcards)
        score = run.scores[wildcards.score]
        return ScoreSets.of(**_scored(score), network=run.network.name).dump()

    def score_code(self, wildcards: Wildcards) -> dict[str, str]:
        return digest("stages.score_sets", sections.score_code(self.plan.run(wildcards).scores[wildcards.score]))

    def metrics_statistics(self, wildcards: Wildcards) -> str | list:
        """Class means, for a network whose head is a probe: its accuracy by the nearest of them stands beside."""
        run = self.plan.run(wildcards)
        given = run.recipe.checkpoint
        probed = given.probe if given else sections.of_method(run).probe
        return self.file("precompute", run, ".h5") if probed else []

    def metrics_inputs(self, wildcards: Wildcards) -> list[str]:
        run = self.plan.run(wildcards)
        return [self.file("scores", run, f"/{score}.h5") for score in run.scores]

    def imported_inputs(self, wildcards: Wildcards) -> dict[str, list[str]]:
        """Another tool's score files, each once, and our stores of their sets."""
        taken = self._taken(wildcards)
        return {"files": list(dict.fromkeys(map(str, taken.files.values()))),
                "stores": [self.store(name, "test") for name in taken.files]}

    def imported_section(self, wildcards: Wildcards) -> str:
        """The sets by file, in the order of the inputs, since files may move."""
        taken, inputs = self._taken(wildcards), self.imported_inputs(wildcards)
        return ImportScores.of(
            **taken.entry.model_dump(include={"id", "higher_is", "labels", "score", "count"}),
            groups=dict(taken.groups), compat=self.plan.compat(taken.entry.id),
            files={name: inputs["files"].index(str(path)) for name, path in taken.files.items()}).dump()

    def imported_code(self, wildcards: Wildcards) -> dict[str, str]:
        return digest("stages.import_scores", *sections.rules_code(self.plan.compat(self._taken(wildcards).entry.id)))

    def _taken(self, wildcards: Wildcards) -> Taken:
        return self.plan.imported[wildcards.id, wildcards.network, wildcards.recipe, int(wildcards.seed)]

    def metrics_section(self, wildcards: Wildcards) -> str:
        run = self.plan.run(wildcards)
        groups: dict[str, list[str]] = {}
        for name, group in self.plan.ood[run.id].items():
            groups.setdefault(group, []).append(f"{name}.test")
        like = {f"{name}.test": f"{other}.test" for name, other in self.plan.id_like[run.id].items()}
        return ComputeMetrics.of(id=f"{run.id}.test", groups=groups, compat=self.plan.compat(run.id),
                                 id_like=like).dump()

    def metrics_code(self, wildcards: Wildcards) -> dict[str, str]:
        return digest("stages.compute_metrics", *sections.rules_code(self.plan.compat(wildcards.id)))

    def distances_section(self, wildcards: Wildcards) -> str:
        run = self.plan.run(wildcards)
        return MeasureDistances.of(**self._pass(self._sibling(run, run.parent))).dump()

    def distances_code(self, wildcards: Wildcards) -> dict[str, str]:
        return digest("stages.measure_distances", *sections.network_code(self.plan.run(wildcards).network))

    def panels_inputs(self, wildcards: Wildcards) -> dict[str, Any]:
        """Both networks of a recipe with label maps, and the test sets."""
        run = self.plan.run(wildcards)
        return {"classifier": self.classifier(wildcards), "checkpoint": self.file("models", run, ".pt"),
                "stores": [self.store(*pair) for pair in self.plan.sets(run.id)[1:]]}

    def panels_section(self, wildcards: Wildcards) -> str:
        run = self.plan.run(wildcards)
        return MakePanels.of(
            network=sections.network(run.network), normalise=run.recipe.normalise, images=6,
            classifier_normalise=self._sibling(run, run.classifier).recipe.normalise,
            options=run.recipe.masks.options).dump()

    def panels_code(self, wildcards: Wildcards) -> dict[str, str]:
        return digest("stages.make_panels", *sections.network_code(self.plan.run(wildcards).network))


def _scored(score: Score) -> dict[str, Any]:
    """What a section of a score is made of."""
    return {"score": score.module, "name": score.name, "options": score.options}
