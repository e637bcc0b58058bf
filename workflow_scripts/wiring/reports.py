"""Jobs that make tables, figures and the page."""

from __future__ import annotations

import json
from typing import Any

from workflow_scripts.core.digest import digest, resolved
from workflow_scripts.stages.sections.compare_scores import CompareScores
from workflow_scripts.stages.sections.draw_figures import DrawFigures
from workflow_scripts.stages.sections.draw_reliability import DrawReliability
from workflow_scripts.stages.sections.make_cards import OUTLIERS, MakeCards
from workflow_scripts.stages.sections.make_report import MakeReport
from workflow_scripts.stages.sections.make_tables import MakeTables
from workflow_scripts.stages.sections.write_manifest import WriteManifest
from workflow_scripts.wiring import paths, sections
from workflow_scripts.wiring.paths import Wildcards
from workflow_scripts.wiring.targets import FILES, figures
from workflow_scripts.work import extras
from workflow_scripts.work.fusion import columns
from workflow_scripts.work.imported import of_paper
from workflow_scripts.work.plan import Key, Plan, Taken, Trained
from workflow_scripts.work.published import compared_sets, published

MANIFEST_STAGES = ("stages.prepare_dataset", "stages.train_network", "stages.extract_features", "stages.score_sets",
                   "stages.compute_metrics", "stages.make_tables")
"""Stages whose code a manifest records."""


def metrics(plan: Plan, wildcards: Wildcards) -> list[str]:
    """Metrics of everything a paper reports."""
    return [*(paths.of_network(plan, "metrics", run, ".csv") for run in plan.reported(wildcards.paper)),
            *(paths.imported(plan, taken, "csv") for taken in of_paper(plan, wildcards.paper).values())]


def scores(plan: Plan, wildcards: Wildcards) -> list[str]:
    """Scores of everything a paper reports."""
    return [*(paths.of_network(plan, "scores", run, f"/{score}.h5")
              for run in plan.reported(wildcards.paper) for score in run.scores),
            *(paths.imported(plan, taken, "h5") for taken in of_paper(plan, wildcards.paper).values())]


def checkpoints(plan: Plan, wildcards: Wildcards) -> list[str]:
    """Checkpoints of the networks that a paper reports."""
    return [paths.of_network(plan, "models", run, ".pt") for run in plan.reported(wildcards.paper)]


def stores(plan: Plan, wildcards: Wildcards) -> list[str]:
    """Stores that the networks of a paper see."""
    ids = sorted({run.id for run in plan.reported(wildcards.paper)})
    return [paths.store(plan, *pair) for id in ids for pair in plan.sets(id)]


def compared_train_stores(plan: Plan, wildcards: Wildcards) -> list[str]:
    """Train stores of the ID sets whose networks published numbers are held against."""
    return [paths.store(plan, id, "train") for id in compared_sets(plan, wildcards.paper)]


def table_section(plan: Plan, wildcards: Wildcards) -> str:
    """What a paper's table shows."""
    paper = wildcards.paper
    about = plan.about(paper)
    return MakeTables.of(
        paper=paper, title=about.title if about else paper, runs=_table_rows(plan, paper),
        over=about.over if about else "images",
        names=extras.names_of(plan, paper), **extras.countings(plan, paper), **extras.compared(plan, paper),
        **extras.id_task(plan, paper), **extras.tuned(plan, paper), families=extras.families(plan, paper),
        **extras.listed(plan, paper),
        **published(plan, paper), train_images={
            id: {"store": paths.store(plan, id, "train"), "count": count}
            for id, count in compared_sets(plan, paper).items()}).dump(ordered=True)


def figures_section(plan: Plan, wildcards: Wildcards) -> str:
    """What a paper's figures show."""
    paper = wildcards.paper
    about = plan.about(paper)
    return DrawFigures.of(
        paper=paper, title=about.title if about else paper, runs=_figure_rows(plan, paper),
        names=extras.names_of(plan, paper), headline=about.headline if about else "").dump(ordered=True)


def intervals_section(plan: Plan, wildcards: Wildcards) -> str:
    """Which scores are compared on the same images."""
    return CompareScores.of(paper=wildcards.paper, runs=_figure_rows(plan, wildcards.paper)).dump(ordered=True)


def _table_rows(plan: Plan, paper: str) -> list[dict[str, Any]]:
    """Rows of a table, with the groups of OOD sets that other lists change."""
    rows = _rows(plan, paper)
    for key, row in rows.items():
        row["groups"] |= plan.groups_otherwise(row["id"], row["groups"])
        chosen = plan.runs[key].tuned if key in plan.runs else {}
        row["scores"] = [*row["scores"], *(name for name, how in chosen.items() if how.base in row["scores"])]
    return list(rows.values())


def _figure_rows(plan: Plan, paper: str) -> list[dict[str, Any]]:
    """Rows of figures, with their score files."""
    rows = _rows(plan, paper)
    for key, row in rows.items():
        if key in plan.imported:
            row["scores"] = {s: paths.imported(plan, plan.imported[key], "h5") for s in row["scores"]}
        else:
            row["scores"] = {s: paths.of_network(plan, "scores", plan.runs[key], f"/{s}.h5") for s in row["scores"]}
    return list(rows.values())


def _rows(plan: Plan, paper: str) -> dict[Key, dict[str, Any]]:
    """One row per network that a paper reports, with the names of its scores."""
    rows: dict[Key, dict[str, Any]] = {}
    for experiment in plan.experiments(paper):
        for run in plan.runs_of(experiment):
            row = rows.setdefault(run.key, {
                "id": run.id, "network": run.network.name, "recipe": run.path_name, "seed": run.seed,
                "label": _label(run),
                "scores": [], "groups": {}, "metrics": paths.of_network(plan, "metrics", run, ".csv")})
            row["scores"] += [s for s in columns(experiment) if s not in row["scores"]]
            for group, names in experiment.ood.items():
                members = row["groups"].setdefault(group, [])
                members.extend(n for n in names if n not in members)
    for key, taken in of_paper(plan, paper).items():  # sets it lacks are missing, so that no mean is of fewer
        rows[key] = {"id": key[0], "network": key[1], "recipe": key[2], "seed": key[3],
                     "label": taken.label, "scores": [taken.entry.score], "groups": _groups(plan, taken),
                     "metrics": paths.imported(plan, taken, "csv")}
    return rows


def _groups(plan: Plan, taken: Taken) -> dict[str, list[str]]:
    """OOD sets of an imported row: those of the paper on its ID set, then others that it has."""
    groups: dict[str, list[str]] = {}
    mine = [e.ood for e in plan.experiments(taken.entry.paper) if e.id == taken.entry.id]
    for sets in [*mine, taken.groups]:
        for group, names in sets.items():
            members = groups.setdefault(group, [])
            members.extend(name for name in names if name not in members)
    return groups


def reliability_inputs(plan: Plan, wildcards: Wildcards) -> list[str]:
    """Headline scores and ID test features of a paper's networks."""
    score, runs = extras.headline_runs(plan, wildcards.paper)
    return [path for run, _ in runs for path in _confidences(plan, run, score).values()]


def reliability_section(plan: Plan, wildcards: Wildcards) -> str:
    score, runs = extras.headline_runs(plan, wildcards.paper)
    rows = [{"id": run.id, "network": run.network.name, "label": _label(run), "seed": run.seed, "sets": sets,
             **_confidences(plan, run, score)} for run, sets in runs]
    return DrawReliability.of(
        paper=wildcards.paper, score=score, runs=rows, names=extras.names_of(plan, wildcards.paper),
        probability=all(run.scores[score].module == "msp" and sections.confidence(run.scores[score]) == "exp"
                        for run, _ in runs)).dump(ordered=True)


def _confidences(plan: Plan, run: Trained, score: str) -> dict[str, str]:
    return {"scores": paths.of_network(plan, "scores", run, f"/{score}.h5"),
            "features": paths.test_features(plan, run)}


def _label(run: Trained) -> str:
    """The training's name in tables and figures, with the defects it reproduces."""
    return " ".join([run.recipe.label, *(f"[{bug}]" for bug in run.released)])


def manifest_section(plan: Plan, wildcards: Wildcards) -> str:
    """The experiments of a paper, what they name, and the digest of the code behind them."""
    config = json.loads(plan.config.model_dump_json(exclude={"only"}))  # an infinite option as text
    if left_out := plan.config.only.within_a_paper():
        config["only"] = left_out  # of other papers' tables this one knows nothing
    runs = plan.reported(wildcards.paper)
    code = {stage: digest(stage) for stage in MANIFEST_STAGES}
    parts = ({part for r in runs for part in sections.network_code(r.network)}
             | {f"methods.{r.recipe.method}" for r in runs if r.recipe.method}
             | {f"scores.{s.module}" for r in runs for s in r.scores.values()})
    named = {part if isinstance(part, str) else f"own.{part.module}": part for part in map(resolved, parts)}
    config["experiments"] = [e for e in config["experiments"] if e["paper"] == wildcards.paper]
    return WriteManifest.of(config=config, seeds=sorted({run.seed for run in runs}),
                            code=code | {name: digest(part) for name, part in sorted(named.items())}).dump()


def cards_section(plan: Plan) -> str:
    """Every store with its role."""
    roles: dict[tuple[str, str], str] = {}
    for id, sets in plan.ood.items():
        roles |= {(id, "train"): "ID train", (id, "test"): "ID test"}
        for name, group in sets.items():
            roles.setdefault((name, "test"), f"OOD test ({group})")
        for parts in plan.parts[id].values():
            roles[parts.like, "test"] = "ID-like test"
            roles.setdefault((parts.ood, "test"), "OOD test (scood)")
        roles |= {(name, "test"): "shifted ID test" for name in plan.shifted[id]}
        for number, pair in enumerate(plan.validation_sets(id)):
            roles.setdefault(pair, "OOD validation" if number else "ID validation")
    for run in plan.runs.values():
        if run.recipe.images:
            roles[run.recipe.images, "train"] = "ID train, in the size to train on"
        if outliers := run.outliers:
            roles[outliers, "train"] = OUTLIERS
        if run.among:
            roles[plan.held_out(run), "val"] = "outliers to choose by"
    rows = plan.datasets
    cards = [{"name": d, "path": paths.store(plan, d, s), "role": roles[d, s], "licence": rows[d].licence,
              "about": rows[d].about} for d, s in plan.used_datasets()]
    return MakeCards.of(sets=cards, names=plan.names).dump(ordered=True)


def report_section(plan: Plan) -> str:
    """The page: the files of each paper and what is said of it."""
    config = plan.config
    papers = []
    for paper in plan.papers:
        about = plan.about(paper)
        said = {"title": about.title, "about": about.about, "reference": about.published,
                "headline": about.headline, "over": about.over,
                **({"claim": about.claim.model_dump()} if about.claim else {})} if about else {"title": paper}
        if absent := [f"{one.label} ({one.key.id})" for one in plan.left_out if one.paper == paper]:
            said["about"] = (f"{said.get('about', '')} Left out, since the weights are not there: "
                             f"{', '.join(absent)}.").strip()
        papers.append({"name": paper, **said, **{kind: paths.of_paper(plan, paper, kind) for kind in FILES},
                       "figures": figures(plan, paper), **extras.countings(plan, paper),
                       **extras.compared(plan, paper), **extras.id_task(plan, paper), **extras.tuned(plan, paper),
                       "families": extras.families(plan, paper), **extras.listed(plan, paper)})
    return MakeReport.of(variant=config.variant, title=config.title or f"Results of {config.variant}",
                         about=config.about, small=config.small, papers=papers, notes=config.notes,
                         cards=f"{paths.root(plan)}/cards.json", names=plan.names).dump(ordered=True)
