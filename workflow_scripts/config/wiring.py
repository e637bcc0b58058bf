"""From the plan to the workflow: files, inputs, parameters and code digests of jobs, by wildcards.

The rules hold no logic; what they need is a method of :class:`Wiring`. Sections of the configuration are passed to jobs
as one JSON text each, which Snakemake compares: a job reruns exactly when its section, its code or an input changed.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workflow_scripts import plugins
from workflow_scripts.config.expand import Key, Plan, Trained, columns
from workflow_scripts.config.models import Network, Picture
from workflow_scripts.digest import ROOT, digest
from workflow_scripts.files import sha256

FIGURES = ("histograms", "roc", "heatmap")
Wildcards = Any  # Snakemake's; attributes by name


def dumps(section: Any, ordered: bool = False) -> str:
    """A section as text; keys sorted, so that reordering a file changes nothing, unless their order is shown."""
    return json.dumps(section, sort_keys=not ordered, separators=(",", ":"))


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

    # -- files ----------------------------------------------------------------------------------------------------

    def store(self, dataset: str, split: str) -> str:
        return f"{self.root}/data/{dataset}.{split}.h5"

    def file(self, kind: str, run: Trained, *rest: str) -> str:
        """A file of one trained network: root/kind/id/network/recipe/seedN, then ``rest`` as it is."""
        return "".join([f"{self.root}/{kind}/{run.id}/{run.network.name}/{run.path_name}/seed{run.seed}", *rest])

    def of_paper(self, paper: str, kind: str) -> str:
        """A file of a paper: its table (csv, md), its manifest, or a figure by file name."""
        if kind in ("csv", "md"):
            return f"{self.root}/tables/{paper}.{kind}"
        return f"{self.root}/tables/{paper}.manifest.json" if kind == "manifest" else (
            f"{self.root}/figures/{paper}/{kind}")

    def results_of(self, paper: str) -> list[str]:
        """Everything a paper's target makes."""
        return [self.of_paper(paper, kind) for kind in (
            "csv", "md", "manifest", *(f"{name}.svg" for name in self.figures(paper)))]

    def figures(self, paper: str) -> list[str]:
        """Names of a paper's figures: those that every paper has, then its own pictures."""
        return [*FIGURES, *(picture.file for picture in self.plan.pictures(paper))]

    # -- stores and networks --------------------------------------------------------------------------------------

    def stores(self) -> list[str]:
        return [self.store(dataset, split) for dataset, split in self.plan.used_datasets()]

    def archives(self, wildcards: Wildcards) -> list[str]:
        """Downloaded raw files of a store."""
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

    def prepare_section(self, wildcards: Wildcards) -> str:
        section = self.plan.datasets[wildcards.dataset].section(wildcards.split, self.plan.data_root)
        fetched = self.plan.archives(wildcards.dataset, wildcards.split)
        raw = [self.plan.sources[name].identity() for name in fetched] if fetched else section["raw"]
        return dumps({**section, "raw": raw, "limit": self.plan.config.limit.images})

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
        recipe = run.recipe.model_dump(mode="json")
        for key in ("label", "where", "parent", "released", "name", "checkpoint", "images"):
            del recipe[key]
        recipe["masks"] = bool(recipe["masks"])  # the label maps are an input
        if recipe["outliers"]:
            del recipe["outliers"]["dataset"], recipe["outliers"]["select"]  # the store and the selection are inputs
        if recipe["validation"] and recipe["validation"]["list"]:
            path = ROOT / recipe["validation"]["list"]
            recipe["validation"]["sha256"] = sha256(path) if path.is_file() else None
        recipe["options"] = _options("methods", run.recipe.method, run.recipe.options)
        return dumps({"network": _network(run.network), "recipe": recipe, "released": run.released,
                      "steps": self.plan.config.limit.steps})

    def train_store(self, wildcards: Wildcards) -> str:
        """Images to train on: the ID set's, or those of another row in another size."""
        run = self.plan.run(wildcards)
        return self.store(run.recipe.images or run.id, "train")

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
        return dumps({"network": _network(run.network), "normalise": normalise,
                      "options": _options("", "cam", run.recipe.masks.options)})

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

    def recipes(self, imported: bool) -> str:
        """The recipes whose weights are read from a file (or are trained) as the constraint of a wildcard."""
        named = {run.path_name for run in self.plan.runs.values() if (run.recipe.checkpoint is not None) == imported}
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
        return dumps({"network": _network(run.network),
                      **given.model_dump(include={"sha256", "key", "strip_prefix", "rename"}),
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
            return dumps({"network": _network(run.network), "sets": [f"{d}.{s}" for d, s in sets],
                          "normalise": run.recipe.model_dump(mode="json")["normalise"],
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
        options = _options("scores", run.scores[wildcards.score].module, run.scores[wildcards.score].options)
        return {"foreground": self.file("scores", run, f"/{options['base']}.h5"),
                "background": self.file("scores", run, f"/{options['background']}.h5")}

    def fused_section(self, wildcards: Wildcards) -> str:
        run = self.plan.run(wildcards)
        score = run.scores[wildcards.score]
        return dumps({"score": score.module, "name": score.name, "train": f"{run.id}.train",
                      "options": _options("scores", score.module, score.options)})

    def fused_code(self, wildcards: Wildcards) -> dict[str, str]:
        return digest("fuse", f"scores.{self.plan.run(wildcards).scores[wildcards.score].module}")

    def network_score_inputs(self, wildcards: Wildcards) -> dict[str, Any]:
        """Stores of every test set, and the train images where the score learns from them."""
        run = self.plan.run(wildcards)
        inputs: dict[str, Any] = {"stores": [self.store(*pair) for pair in self._scored(run, wildcards.score)]}
        if "train_labels" in self.plan.needs(run, wildcards.score):
            inputs["train"] = self.store(run.id, "train")
        return inputs

    def network_score_section(self, wildcards: Wildcards) -> str:
        run = self.plan.run(wildcards)
        score = run.scores[wildcards.score]
        return dumps({"score": score.module, "name": score.name, "network": _network(run.network),
                      "options": _options("scores", score.module, score.options),
                      "normalise": run.recipe.model_dump(mode="json")["normalise"],
                      "batch_size": self.plan.config.features.batch_size,
                      "sets": [f"{d}.{s}" for d, s in self._scored(run, wildcards.score)]})

    def network_score_code(self, wildcards: Wildcards) -> dict[str, str]:
        run = self.plan.run(wildcards)
        return digest("score_network", f"scores.{run.scores[wildcards.score].module}", f"models.{run.network.model}")

    def sweep_section(self, wildcards: Wildcards) -> str:
        run = self.plan.run(wildcards)
        return dumps({"network": _network(run.network), "normalise": run.recipe.model_dump(mode="json")["normalise"],
                      "batch_size": self.plan.config.features.batch_size,
                      "options": _options("", "sweep", run.scores[wildcards.score].choose.sweep)})

    def sweep_code(self, wildcards: Wildcards) -> dict[str, str]:
        return digest("sweep", f"models.{self.plan.run(wildcards).network.model}")

    def score_section(self, wildcards: Wildcards) -> str:
        run = self.plan.run(wildcards)
        score = run.scores[wildcards.score]
        return dumps({"score": score.module, "name": score.name, "network": run.network.name,
                      "options": _options("scores", score.module, score.options)})

    def score_code(self, wildcards: Wildcards) -> dict[str, str]:
        return digest("score", f"scores.{self.plan.run(wildcards).scores[wildcards.score].module}")

    def metrics_inputs(self, wildcards: Wildcards) -> list[str]:
        run = self.plan.run(wildcards)
        return [self.file("scores", run, f"/{score}.h5") for score in run.scores]

    def metrics_section(self, wildcards: Wildcards) -> str:
        run = self.plan.run(wildcards)
        compat = sorted({c for e in self.plan.config.experiments if e.id == run.id for c in e.compat})
        groups: dict[str, list[str]] = {}
        for name, group in self.plan.ood[run.id].items():
            groups.setdefault(group, []).append(f"{name}.test")
        return dumps({"id": f"{run.id}.test", "groups": groups, "compat": compat})

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
                        "label": " ".join([run.recipe.label, *(f"[{bug}]" for bug in run.released)]),
                        "scores": [], "groups": {}, "metrics": self.file("metrics", run, ".csv")})
                    row["scores"] += [s for s in columns(experiment) if s not in row["scores"]]
                    for group, names in experiment.ood.items():
                        members = row["groups"].setdefault(group, [])
                        members.extend(n for n in names if n not in members)
            if with_scores:
                for key, row in rows.items():
                    run = self.plan.runs[key]
                    row["scores"] = {s: self.file("scores", run, f"/{s}.h5") for s in row["scores"]}
            about = next((p for p in self.plan.config.papers if p.name == wildcards.paper), None)
            section = {"paper": wildcards.paper, "title": about.title if about else wildcards.paper,
                       "runs": list(rows.values()), "names": self.plan.names}
            if with_scores and about and about.headline:
                section["headline"] = about.headline
            return dumps(section, ordered=True)

        return section

    def pictures(self) -> str:
        """The papers' own pictures as the constraint of a wildcard."""
        named = {picture.file for paper in self.plan.papers for picture in self.plan.pictures(paper)}
        return "|".join(map(re.escape, sorted(named))) or "(?!)"

    def _picture(self, wildcards: Wildcards) -> tuple[Picture, list[tuple[Trained, dict[str, Any]]]]:
        """A picture, and the networks it shows with their files by kind."""
        picture = next(p for p in self.plan.pictures(wildcards.paper) if p.file == wildcards.picture)
        needs = plugins.constant("pictures", picture.picture, "NEEDS", frozenset())
        runs = self.plan.pictured(wildcards.paper, picture)
        return picture, [(run, {kind: self._pictured(kind, run) for kind in sorted(needs)}) for run in runs]

    def _pictured(self, kind: str, run: Trained) -> str | list[str]:
        """A network's file of one of the kinds in :data:`workflow_scripts.pictures.base.KINDS`."""
        tests = self.plan.sets(run.id)[2:]
        return {
            "record": lambda: self.file("models", run, ".h5"),
            "checkpoint": lambda: self.file("models", run, ".pt"),
            "outliers": lambda: self.store(self.plan.outliers(run), "train"),
            "selection": lambda: self.file("selection", run, ".h5"),
            "distances": lambda: self.file("distances", run, ".h5"),
            "metrics": lambda: self.file("metrics", run, ".csv"),
            "scores": lambda: [self.file("scores", run, f"/{score}.h5") for score in run.scores],
            "panels": lambda: self.file("panels", run, ".h5"),
            "train": lambda: self.store(run.id, "train"),
            "test": lambda: self.store(run.id, "test"),
            "ood": lambda: [self.store(*pair) for pair in tests],
            "train_features": lambda: self.file("features", run, f"/{run.id}.train.h5"),
            "test_features": lambda: self.file("features", run, f"/{run.id}.test.h5"),
            "ood_features": lambda: [self.file("features", run, f"/{d}.{s}.h5") for d, s in tests],
        }[kind]()

    def picture_inputs(self, wildcards: Wildcards) -> list[str]:
        files = [file for _, kinds in self._picture(wildcards)[1] for file in kinds.values()]
        return list(dict.fromkeys(f for file in files for f in (file if isinstance(file, list) else [file])))

    def picture_section(self, wildcards: Wildcards) -> str:
        picture, runs = self._picture(wildcards)
        return dumps({"paper": wildcards.paper, "name": picture.file, "picture": picture.picture,
                      "options": _options("pictures", picture.picture, picture.options), "names": self.plan.names,
                      "runs": [{"id": run.id, "network": run.network.name, "recipe": run.path_name,
                                "label": run.recipe.label, "seed": run.seed, "files": files,
                                "section": run.recipe.model_dump(mode="json", exclude={"label", "where"})}
                               for run, files in runs]}, ordered=True)

    def picture_code(self, wildcards: Wildcards) -> dict[str, str]:
        return digest("picture", f"pictures.{self._picture(wildcards)[0].picture}")

    def distances_section(self, wildcards: Wildcards) -> str:
        run = self.plan.run(wildcards)
        return dumps({"network": _network(run.network), "normalise": run.recipe.model_dump(mode="json")["normalise"],
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
        return dumps({"network": _network(run.network), "classifier_normalise": before, "normalise": own, "images": 6,
                      "options": _options("", "cam", run.recipe.masks.options)})

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
        for run in self.plan.runs.values():
            if run.recipe.images:
                roles[run.recipe.images, "train"] = "ID train, in the size to train on"
            if outliers := self.plan.outliers(run):
                roles[outliers, "train"] = "outliers to train against"
        rows = self.plan.datasets
        return dumps({"names": self.plan.names, "sets": [
            {"name": d, "path": self.store(d, s), "role": roles[d, s], "licence": rows[d].licence,
             "about": rows[d].about}
            for d, s in self.plan.used_datasets()]}, ordered=True)

    def report_section(self) -> str:
        config = self.plan.config
        about = {p.name: p.model_dump() for p in config.papers}
        papers = [{"name": paper, "title": paper, "about": "", "reference": "", **about.get(paper, {}),
                   **{kind: self.of_paper(paper, kind) for kind in ("csv", "md", "manifest")},
                   "figures": [self.of_paper(paper, f"{name}.svg") for name in self.figures(paper)]}
                  for paper in self.plan.papers]
        return dumps({"variant": config.variant, "title": config.title or f"Results of {config.variant}",
                      "about": config.about, "small": config.small, "papers": papers, "notes": config.notes,
                      "cards": f"{self.root}/cards.json", "names": self.plan.names}, ordered=True)


def _network(network: Network) -> dict[str, Any]:
    return {"name": network.name, "model": network.model, "options": _options("models", network.model, network.options)}


def _options(package: str, name: str, values: dict[str, Any]) -> dict[str, Any]:
    """All options with their defaults, so that a changed default counts as a change."""
    options = plugins.parse_options(package, name, values, f"{package}.{name}")
    return {key: getattr(options, key) for key in options.__dataclass_fields__}
