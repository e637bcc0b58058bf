"""From the plan to the workflow: files, inputs, parameters and code digests of jobs, by wildcards.

The rules hold no logic; what they need is a method of :class:`Wiring`. Sections of the configuration are passed to jobs
as one JSON text each, which Snakemake compares: a job reruns exactly when its section, its code or an input changed.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from workflow_scripts.config import extras, sections
from workflow_scripts.config.expand import Key, Plan, Trained, columns
from workflow_scripts.config.pictures import Pictures
from workflow_scripts.config.published import published
from workflow_scripts.config.sections import dumps
from workflow_scripts.digest import ROOT, digest
from workflow_scripts.files import sha256

FIGURES = ("histograms", "roc", "heatmap")
FILES = ("csv", "md", "tex", "published", "manifest")  # of each paper, beside its figures
RELIABILITY = ("risk_coverage", "confidences", "reliability")  # for papers that ask for them
Wildcards = Any  # Snakemake's; attributes by name


def prepare_environment(repository: Path, data_root: Path | None) -> None:
    """Let jobs find our package, this Python and the raw data wherever the workflow was started from."""
    paths = [str(repository), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    if data_root:
        os.environ["OOD_DATA"] = str(data_root.resolve())


class Wiring:
    """Files and parameters of the jobs of a plan; all files lie below ``results``/variant."""

    def __init__(self, plan: Plan, results: str = "results"):
        self.plan = plan
        self.root = f"{results}/{plan.config.variant}"
        self.pictures = Pictures(self)

    # -- files ----------------------------------------------------------------------------------------------------

    def store(self, dataset: str, split: str) -> str:
        return f"{self.root}/data/{dataset}.{split}.h5"

    def file(self, kind: str, run: Trained, *rest: str) -> str:
        """A file of one trained network: root/kind/id/network/recipe/seedN, then ``rest`` as it is."""
        return "".join([f"{self.root}/{kind}/{run.id}/{run.network.name}/{run.path_name}/seed{run.seed}", *rest])

    def of_paper(self, paper: str, kind: str) -> str:
        """A file of a paper: its table (csv, md, tex), published numbers, manifest, or a figure by file name."""
        if kind in ("csv", "md", "tex"):
            return f"{self.root}/tables/{paper}.{kind}"
        if kind == "published":
            return f"{self.root}/published/{paper}.csv"
        return f"{self.root}/tables/{paper}.manifest.json" if kind == "manifest" else (
            f"{self.root}/figures/{paper}/{kind}")

    def results_of(self, paper: str) -> list[str]:
        """Everything a paper's target makes."""
        return [*(self.of_paper(paper, kind) for kind in FILES), *self.figures(paper)]

    def figures(self, paper: str) -> list[str]:
        """The figures of a paper's section, as SVG: those that every paper has, then its own."""
        about = self.plan.about(paper)
        wanted = (*FIGURES, *(RELIABILITY if about and about.reliability else ()),
                  *(picture.file for picture in self.pictures.of(paper)))
        return [self.of_paper(paper, f"{name}.svg") for name in wanted]

    # -- stores and networks --------------------------------------------------------------------------------------

    def stores(self) -> list[str]:
        return [self.store(dataset, split) for dataset, split in self.plan.used_datasets()]

    def lmdbs(self, sets: list[tuple[str, str]] | None = None) -> list[str]:
        """Packed archives that these (dataset, split), or all of the configuration, are read from, each once."""
        sets = self.plan.used_datasets() if sets is None else sets
        named = ((self.plan.packed(dataset, split), split) for dataset, split in sets)
        return list(dict.fromkeys(f"{self.plan.config.resources}/lmdb/{name}.{split}.lmdb" for name, split in named
                                  if name))

    def decoded_from(self, sets: list[tuple[str, str]] | None = None) -> list[str]:
        """Packed archives whose images these (dataset, split), or all of the configuration, decode when they are read:
        whoever reads such a store reads the archive."""
        sets = self.plan.used_datasets() if sets is None else sets
        return self.lmdbs([pair for pair in sets if self.plan.datasets[pair[0]].pixels == "decoded"])

    def prepared_from(self, wildcards: Wildcards) -> list[str]:
        """The packed archive of a store, or its downloaded raw files."""
        return self.lmdbs([(wildcards.dataset, wildcards.split)]) or self.archives(wildcards)

    def raw_splits(self, jobs: Iterable[tuple[str, Wildcards]]) -> list[tuple[str, str]]:
        """(dataset, split) whose raw files these (rule, wildcards) read."""
        return [(wildcards.dataset, wildcards.split) for rule, wildcards in jobs if rule == "pack_dataset" or (
            rule == "prepare_dataset" and not self.plan.packed(wildcards.dataset, wildcards.split))]

    def archives(self, wildcards: Wildcards) -> list[str]:
        """Downloaded raw files of a split."""
        names = self.plan.archives(wildcards.dataset, wildcards.split)
        return [f"{self.plan.config.resources}/archives/{name}" for name in names]

    def source_identity(self, wildcards: Wildcards) -> str:
        return dumps(self.plan.sources[wildcards.archive].identity())

    def source_row(self, wildcards: Wildcards) -> str:
        return dumps(self.plan.sources[wildcards.archive].row())

    def fetch_options(self) -> str:
        """The lock file, and whether to download at all."""
        offline = " --offline" if self.plan.config.offline else ""
        return f"--lock {self.plan.config.resources}/checksums.json{offline}"

    def _section(self, wildcards: Wildcards) -> dict[str, Any]:
        section = self.plan.datasets[wildcards.dataset].section(wildcards.split, self.plan.data_root)
        fetched = self.plan.archives(wildcards.dataset, wildcards.split)
        return {**section, "raw": [self.plan.sources[name].identity() for name in fetched] or section["raw"]}

    def prepare_section(self, wildcards: Wildcards) -> str:
        return dumps({**self._section(wildcards), "limit": self.plan.config.limit.images})

    def pack_section(self, wildcards: Wildcards) -> str:
        """An archive is whole: no limit, sample or geometry is part of it."""
        section = self._section(wildcards)
        return dumps({key: section[key] for key in ("dataset", "split", "options", "raw", "only") if key in section})

    def prepare_code(self, wildcards: Wildcards) -> dict[str, str]:
        return digest("prepare", f"data.readers.{self.plan.datasets[wildcards.dataset].reader}")

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
        recipe = self._limited(run.recipe.model_dump(mode="json"))
        for key in ("label", "where", "parent", "released", "name", "checkpoint", "choose", "images"):
            del recipe[key]
        recipe["masks"] = bool(recipe["masks"])  # the label maps are an input
        if recipe["outliers"]:
            del recipe["outliers"]["dataset"], recipe["outliers"]["select"]  # the store and the selection are inputs
        schedule = recipe["training"]["schedule"]
        recipe["training"]["schedule"] = {k: v for k, v in schedule.items() if v or k not in ("warmup", "steps")}
        recipe["validation"] = _listed(recipe["validation"])
        recipe["options"] = sections.options("methods", run.recipe.method, run.recipe.options)
        return dumps({"network": sections.network(run.network), "recipe": recipe, "released": run.released,
                      "steps": self.plan.config.limit.steps})

    def _limited(self, recipe: dict[str, Any]) -> dict[str, Any]:
        """A recipe whose held-out images and outlier batches fit into sets that `limit.images` cut."""
        images = self.plan.config.limit.images
        if images and recipe["validation"]:
            recipe["validation"] |= {"count": min(recipe["validation"]["count"], -(-images // 10)), "list": None}
        if images and recipe["outliers"]:
            select = recipe["outliers"]["select"]
            left = max(1, int(images * select["ratio"] / 2)) if select else images
            recipe["outliers"]["batch_size"] = min(recipe["outliers"]["batch_size"], left)
        return recipe

    def choose_inputs(self, wildcards: Wildcards) -> dict[str, Any]:
        """Candidates' checkpoints, ID train images and held-out outliers."""
        run = self.plan.run(wildcards)
        return {"checkpoints": [self.file("models", one, ".pt") for one in self.plan.candidates(run)],
                "data": self.store(run.id, "train"), "outliers": self.store(self.plan.held_out(run), "val")}

    def choose_section(self, wildcards: Wildcards) -> str:
        run = self.plan.run(wildcards)
        recipe = self._limited(self.plan.candidates(run)[0].recipe.model_dump(mode="json"))
        return dumps({"network": sections.network(run.network), "candidates": list(run.among),
                      "by": run.recipe.choose.by, "normalise": recipe["normalise"],
                      "validation": _listed(recipe["validation"]), "batch_size": self.plan.config.features.batch_size})

    def choose_code(self, wildcards: Wildcards) -> dict[str, str]:
        return digest("choose_recipe", f"models.{self.plan.run(wildcards).network.model}")

    def tokens(self, wildcards: Wildcards) -> str | list:
        """The frozen trunk's output for the ID train images, where a recipe trains on it, or nothing."""
        run = self.plan.run(wildcards)
        return self.file("trunk", self._sibling(run, run.parent), ".h5") if run.recipe.trunk else []

    def trunk_section(self, wildcards: Wildcards) -> str:
        run = self.plan.run(wildcards)
        return dumps({"network": sections.network(run.network), "normalise": sections.evaluated(run),
                      "batch_size": self.plan.config.features.batch_size})

    def trunk_code(self, wildcards: Wildcards) -> dict[str, str]:
        return digest("cache_trunk", f"models.{self.plan.run(wildcards).network.model}")

    def test_images(self, wildcards: Wildcards) -> str | list:
        """Store of the ID test images, where a defect reads them in training, or nothing."""
        run = self.plan.run(wildcards)
        return self.store(run.id, "test") if sections.of_method(run, "TEST") in run.released else []

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
        normalise = self._sibling(run, run.classifier).recipe.model_dump(mode="json")["normalise"]
        return dumps({"network": sections.network(run.network), "normalise": normalise,
                      "options": sections.options("", "cam", run.recipe.masks.options)})

    def masks_code(self, wildcards: Wildcards) -> dict[str, str]:
        return digest("cam", f"models.{self.plan.run(wildcards).network.model}")

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
        select = run.recipe.outliers.select.model_dump(mode="json", exclude={"weights"})
        return dumps({**select, "seed": run.seed if select["seed"] is None else select["seed"]})

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
        how = {"normalise": sections.evaluated(run)} if given.probe else {}
        return dumps({"network": sections.network(run.network), **how, **given.model_dump(
            include={"sha256", "key", "strip_prefix", "rename", "drop", "fresh", "probe"}),
            **given.model_dump(include={"head", "background"}, exclude_defaults=True)})

    def import_code(self, wildcards: Wildcards) -> dict[str, str]:
        return digest("import_checkpoint", f"models.{self.plan.run(wildcards).network.model}")

    def train_code(self, wildcards: Wildcards) -> dict[str, str]:
        run = self.plan.run(wildcards)
        return digest("train", f"models.{run.network.model}", f"methods.{run.recipe.method}")

    # -- features and scores --------------------------------------------------------------------------------------

    def features_section(self, sets: list[tuple[str, str]]) -> Callable[[Wildcards], str]:
        def section(wildcards: Wildcards) -> str:
            run = self.plan.run(wildcards)
            return dumps({"network": sections.network(run.network), "sets": [f"{d}.{s}" for d, s in sets],
                          "normalise": sections.evaluated(run),
                          "batch_size": self.plan.config.features.batch_size})

        return section

    def features_code(self, wildcards: Wildcards) -> dict[str, str]:
        return digest("features", f"models.{self.plan.run(wildcards).network.model}")

    def scores(self, network: bool = False, fused: bool = False) -> str:
        """The scores that run a network, those that join others, or the rest, as the constraint of a wildcard."""
        named = {name for run in self.plan.runs.values() for name in run.scores
                 if [kind in self.plan.needs(run, name) for kind in ("network", "scores")] == [network, fused]}
        return "|".join(map(re.escape, sorted(named))) or "(?!)"

    def score_inputs(self, wildcards: Wildcards) -> dict[str, Any]:
        """Features of every test set, and what else the score needs."""
        run = self.plan.run(wildcards)
        needs = self.plan.needs(run, wildcards.score)
        inputs: dict[str, Any] = {"sets": [self.file("features", run, f"/{d}.{s}.h5")
                                           for d, s in self._scored(run, wildcards.score)]}
        if needs & {"head", "batchnorm"}:
            inputs["head"] = self.file("features", run, "/head.h5")
        if needs & {"train_features", "train_logits", "train_labels", "train_background", "shuffled"}:
            inputs["train"] = self.file("features", run, f"/{run.id}.train.h5")
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
        return dumps({"score": score.module, "name": score.name, "train": f"{run.id}.train",
                      "options": sections.options("scores", score.module, score.options)})

    def fused_code(self, wildcards: Wildcards) -> dict[str, str]:
        return digest("fuse", f"scores.{self.plan.run(wildcards).scores[wildcards.score].module}")

    def network_score_inputs(self, wildcards: Wildcards) -> dict[str, Any]:
        """Stores of every test set, and the train images where the score learns from them."""
        run = self.plan.run(wildcards)
        tests = self._scored(run, wildcards.score)
        inputs: dict[str, Any] = {"stores": [self.store(*pair) for pair in tests]}
        if "train_labels" in self.plan.needs(run, wildcards.score):
            inputs["train"] = self.store(run.id, "train")
        pairs = [*tests, (run.id, "train")] if "train" in inputs else tests
        return inputs | ({"archives": archives} if (archives := self.decoded_from(pairs)) else {})

    def network_score_section(self, wildcards: Wildcards) -> str:
        run = self.plan.run(wildcards)
        score = run.scores[wildcards.score]
        return dumps({"score": score.module, "name": score.name, "network": sections.network(run.network),
                      "options": sections.options("scores", score.module, score.options),
                      "normalise": sections.evaluated(run),
                      "batch_size": self.plan.config.features.batch_size,
                      "sets": [f"{d}.{s}" for d, s in self._scored(run, wildcards.score)]})

    def network_score_code(self, wildcards: Wildcards) -> dict[str, str]:
        run = self.plan.run(wildcards)
        return digest("score_network", f"scores.{run.scores[wildcards.score].module}", f"models.{run.network.model}")

    def sweep_section(self, wildcards: Wildcards) -> str:
        run = self.plan.run(wildcards)
        score = run.scores[wildcards.score]
        return dumps({"network": sections.network(run.network), "normalise": sections.evaluated(run),
                      "score": score.module, "batch_size": self.plan.config.features.batch_size,
                      "options": sections.options("", "sweep", score.choose.sweep)})

    def sweep_inputs(self, wildcards: Wildcards) -> dict[str, str]:
        """What the score's options are chosen with: class means, or the ID train features."""
        run = self.plan.run(wildcards)
        kind = sections.chosen_with(run.scores[wildcards.score])
        return {kind: self.file("features", run, f"/{run.id}.train.h5") if kind == "train" else (
            self.file("precompute", run, ".h5"))}

    def sweep_code(self, wildcards: Wildcards) -> dict[str, str]:
        return digest("sweep", f"models.{self.plan.run(wildcards).network.model}")

    def score_section(self, wildcards: Wildcards) -> str:
        run = self.plan.run(wildcards)
        score = run.scores[wildcards.score]
        return dumps({"score": score.module, "name": score.name, "network": run.network.name,
                      "options": sections.options("scores", score.module, score.options)})

    def score_code(self, wildcards: Wildcards) -> dict[str, str]:
        return digest("score", f"scores.{self.plan.run(wildcards).scores[wildcards.score].module}")

    def metrics_statistics(self, wildcards: Wildcards) -> str | list:
        """Class means, for a network whose head is a probe: its accuracy by the nearest of them stands beside."""
        run = self.plan.run(wildcards)
        given = run.recipe.checkpoint
        probed = given.probe if given else sections.of_method(run, "HEAD") == "probe"
        return self.file("precompute", run, ".h5") if probed else []

    def metrics_inputs(self, wildcards: Wildcards) -> list[str]:
        run = self.plan.run(wildcards)
        return [self.file("scores", run, f"/{score}.h5") for score in run.scores]

    def metrics_section(self, wildcards: Wildcards) -> str:
        run = self.plan.run(wildcards)
        groups: dict[str, list[str]] = {}
        for name, group in self.plan.ood[run.id].items():
            groups.setdefault(group, []).append(f"{name}.test")
        like = {f"{name}.test": f"{other}.test" for name, other in self.plan.id_like(run.id).items()}
        return dumps({"id": f"{run.id}.test", "groups": groups, "compat": self.plan.compat(run.id),
                      **({"id_like": like} if like else {})})

    # -- tables, figures, page ------------------------------------------------------------------------------------

    def paper_inputs(self, kind: str) -> Callable[[Wildcards], list[str]]:
        """``metrics``, ``scores``, ``models`` or ``data`` files of the networks a paper reports."""
        def inputs(wildcards: Wildcards) -> list[str]:
            runs = self.plan.reported(wildcards.paper)
            if kind == "data":
                return [self.store(*pair) for id in sorted({run.id for run in runs}) for pair in self.plan.sets(id)]
            if kind == "scores":
                return [self.file("scores", run, f"/{score}.h5") for run in runs for score in run.scores]
            return [self.file(kind, run, ".csv" if kind == "metrics" else ".pt") for run in runs]

        return inputs

    def table_section(self, with_scores: bool) -> Callable[[Wildcards], str]:
        """What a paper's table (or, with score files, its figures) shows: one row per network."""
        def section(wildcards: Wildcards) -> str:
            rows: dict[Key, dict[str, Any]] = {}
            for experiment in self.plan.experiments(wildcards.paper):
                for run in self.plan.runs_of(experiment):
                    row = rows.setdefault(run.key, {
                        "id": run.id, "network": run.network.name, "recipe": run.path_name, "seed": run.seed,
                        "label": self._label(run),
                        "scores": [], "groups": {}, "metrics": self.file("metrics", run, ".csv")})
                    row["scores"] += [s for s in columns(experiment) if s not in row["scores"]]
                    for group, names in experiment.ood.items():
                        members = row["groups"].setdefault(group, [])
                        members.extend(n for n in names if n not in members)
            for row in rows.values() if not with_scores else ():
                row["groups"] |= self.plan.relisted_groups(row["id"], row["groups"])
            if with_scores:
                for key, row in rows.items():
                    run = self.plan.runs[key]
                    row["scores"] = {s: self.file("scores", run, f"/{s}.h5") for s in row["scores"]}
            about = self.plan.about(wildcards.paper)
            section = {"paper": wildcards.paper, "title": about.title if about else wildcards.paper,
                       "runs": list(rows.values()), "names": self.plan.names}
            if not with_scores:
                section |= extras.compared(self.plan, wildcards.paper) | extras.id_task(self.plan, wildcards.paper)
                section |= published(self.plan, wildcards.paper)
            if with_scores and about and about.headline:
                section["headline"] = about.headline
            return dumps(section, ordered=True)

        return section

    def reliability_inputs(self, wildcards: Wildcards) -> list[str]:
        """Headline scores and ID test features of a paper's networks."""
        score, runs = extras.relied_on(self.plan, wildcards.paper)
        return [path for run, _ in runs for path in self._confidences(run, score).values()]

    def reliability_section(self, wildcards: Wildcards) -> str:
        score, runs = extras.relied_on(self.plan, wildcards.paper)
        rows = [{"id": run.id, "network": run.network.name, "label": self._label(run), "seed": run.seed, "sets": sets,
                 **self._confidences(run, score)} for run, sets in runs]
        return dumps({"paper": wildcards.paper, "score": score, "names": self.plan.names, "runs": rows,
                      "probability": all(run.scores[score].module == "msp" for run, _ in runs)}, ordered=True)

    def _confidences(self, run: Trained, score: str) -> dict[str, str]:
        return {"scores": self.file("scores", run, f"/{score}.h5"),
                "features": self.file("features", run, f"/{run.id}.test.h5")}

    @staticmethod
    def _label(run: Trained) -> str:
        """The training's name in tables and figures, with the defects it reproduces."""
        return " ".join([run.recipe.label, *(f"[{bug}]" for bug in run.released)])

    def distances_section(self, wildcards: Wildcards) -> str:
        run = self.plan.run(wildcards)
        return dumps({"network": sections.network(run.network),
                      "normalise": run.recipe.model_dump(mode="json")["normalise"],
                      "batch_size": self.plan.config.features.batch_size})

    def distances_code(self, wildcards: Wildcards) -> dict[str, str]:
        return digest("distances", f"models.{self.plan.run(wildcards).network.model}")

    def panels_inputs(self, wildcards: Wildcards) -> dict[str, Any]:
        """Both networks of a recipe with label maps, and the test sets."""
        run = self.plan.run(wildcards)
        return {"classifier": self.classifier(wildcards), "checkpoint": self.file("models", run, ".pt"),
                "stores": [self.store(*pair) for pair in self.plan.sets(run.id)[1:]]}

    def panels_section(self, wildcards: Wildcards) -> str:
        run = self.plan.run(wildcards)
        before, own = (r.recipe.model_dump(mode="json")["normalise"] for r in (self._sibling(run, run.classifier), run))
        return dumps({"network": sections.network(run.network), "classifier_normalise": before, "normalise": own,
                      "images": 6, "options": sections.options("", "cam", run.recipe.masks.options)})

    def panels_code(self, wildcards: Wildcards) -> dict[str, str]:
        return digest("panels", f"models.{self.plan.run(wildcards).network.model}")

    def manifest_section(self, wildcards: Wildcards) -> str:
        """The experiments of a paper, what they name, and the digest of the code behind them."""
        config = self.plan.config.model_dump(mode="json")
        runs = self.plan.reported(wildcards.paper)
        code = {stage: digest(stage) for stage in ("prepare", "train", "features", "score", "evaluate", "tables")}
        parts = ({f"models.{r.network.model}" for r in runs}
                 | {f"methods.{r.recipe.method}" for r in runs if r.recipe.method}
                 | {f"scores.{s.module}" for r in runs for s in r.scores.values()})
        return dumps({"config": {**config, "experiments": [e for e in config["experiments"]
                                                           if e["paper"] == wildcards.paper]},
                      "code": code | {part: digest(part) for part in sorted(parts)},
                      "seeds": sorted({run.seed for run in runs})})

    def cards_section(self) -> str:
        """Every store with its role."""
        roles: dict[tuple[str, str], str] = {}
        for id, sets in self.plan.ood.items():
            roles |= {(id, "train"): "ID train", (id, "test"): "ID test"}
            for name, group in sets.items():
                roles.setdefault((name, "test"), f"OOD test ({group})")
            roles |= {(name, "test"): "ID-like test" for name in self.plan.id_like(id).values()}
        for run in self.plan.runs.values():
            if run.recipe.images:
                roles[run.recipe.images, "train"] = "ID train, in the size to train on"
            if outliers := self.plan.outliers(run):
                roles[outliers, "train"] = "outliers to train against"
            if run.among:
                roles[self.plan.held_out(run), "val"] = "outliers to choose by"
        rows = self.plan.datasets
        return dumps({"names": self.plan.names, "sets": [
            {"name": d, "path": self.store(d, s), "role": roles[d, s], "licence": rows[d].licence,
             "about": rows[d].about}
            for d, s in self.plan.used_datasets()]}, ordered=True)

    def report_section(self) -> str:
        config = self.plan.config
        about = {p.name: p.model_dump() for p in config.papers}
        papers = [{"name": paper, "title": paper, "about": "", "reference": "", **about.get(paper, {}),
                   **{kind: self.of_paper(paper, kind) for kind in FILES},
                   "figures": self.figures(paper), **extras.compared(self.plan, paper),
                   **extras.id_task(self.plan, paper)}
                  for paper in self.plan.papers]
        return dumps({"variant": config.variant, "title": config.title or f"Results of {config.variant}",
                      "about": config.about, "small": config.small, "papers": papers, "notes": config.notes,
                      "cards": f"{self.root}/cards.json", "names": self.plan.names}, ordered=True)


def _listed(validation: dict[str, Any] | None) -> dict[str, Any] | None:
    """Held-out images with the hash of their list."""
    if validation and validation["list"]:
        path = ROOT / validation["list"]
        validation = {**validation, "sha256": sha256(path) if path.is_file() else None}
    return validation
