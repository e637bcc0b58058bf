"""Jobs that make tables, figures and the page."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from workflow_scripts.core.digest import digest
from workflow_scripts.stages.sections.draw_figures import DrawFigures
from workflow_scripts.stages.sections.draw_reliability import DrawReliability
from workflow_scripts.stages.sections.make_cards import MakeCards
from workflow_scripts.stages.sections.make_report import MakeReport
from workflow_scripts.stages.sections.make_tables import MakeTables
from workflow_scripts.stages.sections.write_manifest import WriteManifest
from workflow_scripts.wiring import sections
from workflow_scripts.wiring.files import FILES, Files, Wildcards
from workflow_scripts.work import extras
from workflow_scripts.work.fusion import columns
from workflow_scripts.work.imported import of_paper
from workflow_scripts.work.plan import Key, Taken, Trained
from workflow_scripts.work.published import published

MANIFEST_STAGES = ("stages.prepare_dataset", "stages.train_network", "stages.extract_features", "stages.score_sets",
                   "stages.compute_metrics", "stages.make_tables")
"""Stages whose code a manifest records."""


class Reports(Files):
    """Tables, figures, manifests, cards, page."""

    def paper_inputs(self, kind: str) -> Callable[[Wildcards], list[str]]:
        """``metrics``, ``scores``, ``models`` or ``data`` files of the networks a paper reports."""
        def inputs(wildcards: Wildcards) -> list[str]:
            runs = self.plan.reported(wildcards.paper)
            if kind == "data":
                return [self.store(*pair) for id in sorted({run.id for run in runs}) for pair in self.plan.sets(id)]
            taken = of_paper(self.plan, wildcards.paper).values()
            if kind == "scores":
                return [*(self.file("scores", run, f"/{score}.h5") for run in runs for score in run.scores),
                        *(self.imported(t, "h5") for t in taken)]
            if kind == "metrics":
                return [*(self.file(kind, run, ".csv") for run in runs), *(self.imported(t, "csv") for t in taken)]
            return [self.file(kind, run, ".pt") for run in runs]

        return inputs

    def table_section(self, with_scores: bool) -> Callable[[Wildcards], str]:
        """What a paper's table (or, with score files, its figures) shows."""
        def section(wildcards: Wildcards) -> str:
            paper = wildcards.paper
            about = self.plan.about(paper)
            fields = {"paper": paper, "title": about.title if about else paper, "runs": self._runs(paper, with_scores),
                      "names": extras.names_of(self.plan, paper)}
            if with_scores:
                return DrawFigures.of(**fields, headline=about.headline if about else "").dump(ordered=True)
            return MakeTables.of(**fields, **extras.compared(self.plan, paper), **extras.id_task(self.plan, paper),
                                 **published(self.plan, paper)).dump(ordered=True)

        return section

    def _runs(self, paper: str, with_scores: bool) -> list[dict[str, Any]]:
        """One row per network that a paper reports, with its score files or only their names."""
        rows: dict[Key, dict[str, Any]] = {}
        for experiment in self.plan.experiments(paper):
            for run in self.plan.runs_of(experiment):
                row = rows.setdefault(run.key, {
                    "id": run.id, "network": run.network.name, "recipe": run.path_name, "seed": run.seed,
                    "label": self._label(run),
                    "scores": [], "groups": {}, "metrics": self.file("metrics", run, ".csv")})
                row["scores"] += [s for s in columns(experiment) if s not in row["scores"]]
                for group, names in experiment.ood.items():
                    members = row["groups"].setdefault(group, [])
                    members.extend(n for n in names if n not in members)
        for key, taken in of_paper(self.plan, paper).items():  # sets it lacks are missing, so that no mean is of fewer
            rows[key] = {"id": key[0], "network": key[1], "recipe": key[2], "seed": key[3],
                         "label": taken.label, "scores": [taken.entry.score], "groups": self._groups(taken),
                         "metrics": self.imported(taken, "csv")}
        for key, row in rows.items():
            if not with_scores:
                row["groups"] |= self.plan.relisted_groups(row["id"], row["groups"])
            elif key in self.plan.imported:
                row["scores"] = {s: self.imported(self.plan.imported[key], "h5") for s in row["scores"]}
            else:
                row["scores"] = {s: self.file("scores", self.plan.runs[key], f"/{s}.h5") for s in row["scores"]}
        return list(rows.values())

    def _groups(self, taken: Taken) -> dict[str, list[str]]:
        """OOD sets of an imported row: those of the paper on its ID set, then others that it has."""
        groups: dict[str, list[str]] = {}
        mine = [e.ood for e in self.plan.experiments(taken.entry.paper) if e.id == taken.entry.id]
        for sets in [*mine, taken.groups]:
            for group, names in sets.items():
                members = groups.setdefault(group, [])
                members.extend(name for name in names if name not in members)
        return groups

    def reliability_inputs(self, wildcards: Wildcards) -> list[str]:
        """Headline scores and ID test features of a paper's networks."""
        score, runs = extras.relied_on(self.plan, wildcards.paper)
        return [path for run, _ in runs for path in self._confidences(run, score).values()]

    def reliability_section(self, wildcards: Wildcards) -> str:
        score, runs = extras.relied_on(self.plan, wildcards.paper)
        rows = [{"id": run.id, "network": run.network.name, "label": self._label(run), "seed": run.seed, "sets": sets,
                 **self._confidences(run, score)} for run, sets in runs]
        return DrawReliability.of(
            paper=wildcards.paper, score=score, runs=rows, names=extras.names_of(self.plan, wildcards.paper),
            probability=all(run.scores[score].module == "msp" for run, _ in runs)).dump(ordered=True)

    def _confidences(self, run: Trained, score: str) -> dict[str, str]:
        return {"scores": self.file("scores", run, f"/{score}.h5"),
                "features": self.test_features(run)}

    @staticmethod
    def _label(run: Trained) -> str:
        """The training's name in tables and figures, with the defects it reproduces."""
        return " ".join([run.recipe.label, *(f"[{bug}]" for bug in run.released)])

    def manifest_section(self, wildcards: Wildcards) -> str:
        """The experiments of a paper, what they name, and the digest of the code behind them."""
        config = json.loads(self.plan.config.model_dump_json(exclude={"only"}))  # an infinite option as text
        if left_out := self.plan.config.only.within_a_paper():
            config["only"] = left_out  # of other papers' tables this one knows nothing
        runs = self.plan.reported(wildcards.paper)
        code = {stage: digest(stage) for stage in MANIFEST_STAGES}
        parts = ({part for r in runs for part in sections.network_code(r.network)}
                 | {f"methods.{r.recipe.method}" for r in runs if r.recipe.method}
                 | {sections.score_code(s) for r in runs for s in r.scores.values()})
        named = {part if isinstance(part, str) else f"own.{part.module}": part for part in parts}
        config["experiments"] = [e for e in config["experiments"] if e["paper"] == wildcards.paper]
        return WriteManifest.of(config=config, seeds=sorted({run.seed for run in runs}),
                                code=code | {name: digest(part) for name, part in sorted(named.items())}).dump()

    def cards_section(self) -> str:
        """Every store with its role."""
        roles: dict[tuple[str, str], str] = {}
        for id, sets in self.plan.ood.items():
            roles |= {(id, "train"): "ID train", (id, "test"): "ID test"}
            for name, group in sets.items():
                roles.setdefault((name, "test"), f"OOD test ({group})")
            roles |= {(name, "test"): "ID-like test" for name in self.plan.id_like[id].values()}
        for run in self.plan.runs.values():
            if run.recipe.images:
                roles[run.recipe.images, "train"] = "ID train, in the size to train on"
            if outliers := self.plan.outliers(run):
                roles[outliers, "train"] = "outliers to train against"
            if run.among:
                roles[self.plan.held_out(run), "val"] = "outliers to choose by"
        rows = self.plan.datasets
        sets = [{"name": d, "path": self.store(d, s), "role": roles[d, s], "licence": rows[d].licence,
                 "about": rows[d].about} for d, s in self.plan.used_datasets()]
        return MakeCards.of(sets=sets, names=self.plan.names).dump(ordered=True)

    def report_section(self) -> str:
        """The page: the files of each paper and what is said of it."""
        config = self.plan.config
        papers = []
        for paper in self.plan.papers:
            about = self.plan.about(paper)
            said = about.model_dump(include={"title", "about", "reference", "headline"}) if about else {"title": paper}
            papers.append({"name": paper, **said, **{kind: self.of_paper(paper, kind) for kind in FILES},
                           "figures": self.figures(paper), **extras.compared(self.plan, paper),
                           **extras.id_task(self.plan, paper)})
        return MakeReport.of(variant=config.variant, title=config.title or f"Results of {config.variant}",
                             about=config.about, small=config.small, papers=papers, notes=config.notes,
                             cards=f"{self.root}/cards.json", names=self.plan.names).dump(ordered=True)
