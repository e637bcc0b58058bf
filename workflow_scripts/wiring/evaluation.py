"""Jobs from trained networks to metrics: features, scores, metrics, and what pictures need of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from workflow_scripts.config.models import Score
from workflow_scripts.core.digest import digest
from workflow_scripts.stages.sections.choose_network_options import ChooseNetworkOptions
from workflow_scripts.stages.sections.choose_options import ChooseOptions
from workflow_scripts.stages.sections.compute_metrics import ComputeMetrics
from workflow_scripts.stages.sections.extract_features import ExtractFeatures
from workflow_scripts.stages.sections.extract_pseudo_ood import ExtractPseudoOOD
from workflow_scripts.stages.sections.fuse_scores import FuseScores
from workflow_scripts.stages.sections.import_scores import ImportScores
from workflow_scripts.stages.sections.make_panels import MakePanels
from workflow_scripts.stages.sections.measure_distances import MeasureDistances
from workflow_scripts.stages.sections.score_network import ScoreNetwork
from workflow_scripts.stages.sections.score_sets import ScoreSets
from workflow_scripts.stages.sections.tune_options import TuneOptions
from workflow_scripts.wiring import data, paths, sections, training
from workflow_scripts.wiring.paths import Wildcards
from workflow_scripts.work.plan import Key, Plan, Taken, Trained

# -- features -----------------------------------------------------------------------------------------------------


def feature_files(group: str) -> list[str]:
    """Names of the features files that a group's job writes, with ``{id}`` for the ID set's."""
    return [*(["{id}.train", "{id}.test"] if group != "ood" else []), *(["ood"] if group != "id" else [])]


def feature_stores(plan: Plan, wildcards: Wildcards, group: str) -> list[str]:
    """Stores of the sets that a group's job passes through a network."""
    return [paths.store(plan, *pair) for pair in _feature_sets(plan, wildcards, group)]


def feature_archives(plan: Plan, wildcards: Wildcards, group: str) -> list[str]:
    """Archives that those images are decoded from, where they are not stored."""
    return data.decoded_from(plan, _feature_sets(plan, wildcards, group))


def features_section(plan: Plan, wildcards: Wildcards, group: str) -> str:
    """How a group of sets passes through a network."""
    return ExtractFeatures.of(
        **_pass(plan, plan.run(wildcards)), sets=[f"{d}.{s}" for d, s in _feature_sets(plan, wildcards, group)],
        precision=plan.config.features.precision).dump()


def features_code(plan: Plan, wildcards: Wildcards) -> dict[str, str]:
    """Code behind features."""
    return digest("stages.extract_features", *sections.network_code(plan.run(wildcards).network))


def _pass(plan: Plan, run: Trained) -> dict[str, Any]:
    """What a section of a forward pass is made of."""
    return {"network": sections.network(run.network), "normalise": sections.evaluated(run),
            "batch_size": plan.config.features.batch_size}


def _feature_sets(plan: Plan, wildcards: Wildcards, group: str) -> list[tuple[str, str]]:
    """The ID set's two splits (``id``), the other sets (``ood``), ``all`` of these, or those that options are chosen
    with (``validation``)."""
    id = plan.run(wildcards).id
    sets = plan.sets(id)
    return {"id": sets[:2], "ood": sets[2:], "all": sets, "validation": plan.validation_sets(id)}[group]


# -- scores -------------------------------------------------------------------------------------------------------


def scores(plan: Plan, network: bool = False, fused: bool = False) -> str:
    """The scores that run a network, those that join others, or the rest, as the constraint of a wildcard."""
    return _named({name for run in plan.runs.values() for name in run.scores
                   if [kind in plan.needs(run, name) for kind in ("network", "scores")] == [network, fused]})


def score_inputs(plan: Plan, wildcards: Wildcards) -> dict[str, Any]:
    """Features of every test set, and what else the score needs."""
    run = plan.run(wildcards)
    needs = plan.needs(run, wildcards.score)
    return {"sets": paths.features(plan, run, _scored_sets(plan, run, wildcards.score)), **_known(plan, run, needs),
            **_choice(plan, run, wildcards.score)}


def _known(plan: Plan, run: Trained, needs: frozenset[str]) -> dict[str, Any]:
    """What a score reads of what is known before a test image is seen, by the arguments of its stage."""
    known: dict[str, Any] = {}
    if needs & {"head", "batchnorm"}:
        known["head"] = paths.of_network(plan, "features", run, "/head.h5")
    if needs & {"train_features", "train_logits", "train_labels", "train_background", "shuffled"}:
        known["train"] = paths.train_features(plan, run)
    if "statistics" in needs:
        known["statistics"] = paths.of_network(plan, "precompute", run, ".h5")
    return known


def score_section(plan: Plan, wildcards: Wildcards) -> str:
    """How a score is computed of features."""
    run = plan.run(wildcards)
    return ScoreSets.of(**_scored(run.scores[wildcards.score]), network=run.network.name).dump()


def score_code(plan: Plan, wildcards: Wildcards) -> dict[str, str]:
    """Code behind a score."""
    return digest("stages.score_sets", f"scores.{plan.run(wildcards).scores[wildcards.score].module}")


def fused_inputs(plan: Plan, wildcards: Wildcards) -> dict[str, str]:
    """The two scores that a joined score is made of."""
    run = plan.run(wildcards)
    score = run.scores[wildcards.score]
    options = sections.options("scores", score.module, score.options)
    return {"foreground": paths.of_network(plan, "scores", run, f"/{options['base']}.h5"),
            "background": paths.of_network(plan, "scores", run, f"/{options['background']}.h5")}


def fused_section(plan: Plan, wildcards: Wildcards) -> str:
    """How two scores are joined."""
    run = plan.run(wildcards)
    return FuseScores.of(**_scored(run.scores[wildcards.score]), train=f"{run.id}.train").dump()


def fused_code(plan: Plan, wildcards: Wildcards) -> dict[str, str]:
    """Code behind a joined score."""
    return digest("stages.fuse_scores", f"scores.{plan.run(wildcards).scores[wildcards.score].module}")


def network_score_inputs(plan: Plan, wildcards: Wildcards) -> dict[str, Any]:
    """Stores of every test set, and what else a score that runs the network needs."""
    run = plan.run(wildcards)
    return _run_with_network(plan, run, wildcards.score, _scored_sets(plan, run, wildcards.score)) | _choice(
        plan, run, wildcards.score)


def _run_with_network(plan: Plan, run: Trained, score: str, sets: list[tuple[str, str]],
                      train: bool = False) -> dict[str, Any]:
    """Stores of these sets, those of the ID train images where the score learns from them or ``train`` says so, and
    class means."""
    needs = plan.needs(run, score)
    inputs: dict[str, Any] = {"stores": [paths.store(plan, *pair) for pair in sets]}
    if train or "train_labels" in needs:
        inputs["train_store"] = paths.store(plan, run.id, "train")
        sets = [*sets, (run.id, "train")]
    if "statistics" in needs:
        inputs["statistics"] = paths.of_network(plan, "precompute", run, ".h5")
    return inputs | ({"archives": archives} if (archives := data.decoded_from(plan, sets)) else {})


def _choice(plan: Plan, run: Trained, score: str) -> dict[str, str]:
    """What a search chose for a score, where there is one."""
    searched = run.scores[score].tune is not None or score in run.tuned
    return {"choice": paths.of_network(plan, "sweep", run, f"/{score}.json")} if searched else {}


def network_score_section(plan: Plan, wildcards: Wildcards) -> str:
    """How a score that runs the network is computed."""
    run = plan.run(wildcards)
    return ScoreNetwork.of(**_scored(run.scores[wildcards.score]), **_pass(plan, run),
                           sets=[f"{d}.{s}" for d, s in _scored_sets(plan, run, wildcards.score)]).dump()


def network_score_code(plan: Plan, wildcards: Wildcards) -> dict[str, str]:
    """Code behind a score that runs the network."""
    run = plan.run(wildcards)
    return digest("stages.score_network", f"scores.{run.scores[wildcards.score].module}",
                  *sections.network_code(run.network))


def sweep_inputs(plan: Plan, wildcards: Wildcards) -> dict[str, str]:
    """What the score's options are chosen with: class means, or the ID train features."""
    run = plan.run(wildcards)
    kind = sections.chosen_with(run.scores[wildcards.score])
    return {kind: paths.train_features(plan, run) if kind == "train"
            else paths.of_network(plan, "precompute", run, ".h5")}


def sweep_section(plan: Plan, wildcards: Wildcards) -> str:
    """Among which options of a score is chosen."""
    run = plan.run(wildcards)
    score = run.scores[wildcards.score]
    assert score.tune is not None  # its output is read where a score has it
    return TuneOptions.of(**_pass(plan, run), score=score.module, options=score.tune.sweep).dump()


def sweep_code(plan: Plan, wildcards: Wildcards) -> dict[str, str]:
    """Code behind the choice of a score's options."""
    run = plan.run(wildcards)
    return digest("stages.tune_options", f"scores.{run.scores[wildcards.score].module}",
                  *sections.network_code(run.network))


def tuned(plan: Plan, network: bool) -> str:
    """The scores whose options an experiment's `tuning` chooses, those that run the network or the others, as the
    constraint of a wildcard."""
    return _named({name for run in plan.runs.values() for name in run.tuned
                   if ("network" in plan.needs(run, name)) == network})


def swept(plan: Plan) -> str:
    """The scores whose options a sweep chooses, as the constraint of a wildcard."""
    return _named({name for run in plan.runs.values() for name, score in run.scores.items() if score.tune is not None})


def _named(names: set[str]) -> str:
    """A pattern for these names alone."""
    return "|".join(map(re.escape, sorted(names))) or "(?!)"


def pseudo_section(plan: Plan, wildcards: Wildcards) -> str:
    """Which ID train images are copied as pseudo-OOD, and how."""
    run = plan.run(wildcards)
    return ExtractPseudoOOD.of(**_pass(plan, run), options=plan.tuning[run.id].pseudo_ood).dump()


def pseudo_code(plan: Plan, wildcards: Wildcards) -> dict[str, str]:
    """Code behind features of pseudo-OOD."""
    return digest("stages.extract_pseudo_ood", *sections.network_code(plan.run(wildcards).network))


def choice_inputs(plan: Plan, wildcards: Wildcards) -> dict[str, Any]:
    """Features that options are chosen with, and what else the score needs."""
    run = plan.run(wildcards)
    way = run.tuned[wildcards.score].way
    known = _known(plan, run, plan.needs(run, wildcards.score))
    if way == "validation":
        return {"sets": paths.of_network(plan, "features", run, "/validation.h5"), **known}
    return {"sets": paths.of_network(plan, "features", run, "/pseudo.h5"), **known,
            "train": paths.train_features(plan, run)}


def choice_section(plan: Plan, wildcards: Wildcards) -> str:
    """Of which score options are chosen, and by what."""
    run = plan.run(wildcards)
    return ChooseOptions.of(**_searched(plan, run, wildcards.score), network=run.network.name).dump()


def _searched(plan: Plan, run: Trained, score: str) -> dict[str, Any]:
    """What a section of a choice is made of."""
    tuning, way = plan.tuning[run.id], run.tuned[score].way
    return {**_scored(run.scores[score]), "id": f"{tuning.id}.test" if way == "validation" else None,
            "criterion": tuning.criterion}


def choice_code(plan: Plan, wildcards: Wildcards) -> dict[str, str]:
    """Code behind the choice of a score's options."""
    return digest("stages.choose_options", f"scores.{plan.run(wildcards).scores[wildcards.score].module}")


def network_choice_inputs(plan: Plan, wildcards: Wildcards) -> dict[str, Any]:
    """Images that options of a score that runs the network are chosen with, and what else it needs."""
    run, score = plan.run(wildcards), wildcards.score
    validation = run.tuned[score].way == "validation"
    return _run_with_network(plan, run, score, plan.validation_sets(run.id) if validation else [], not validation)


def network_choice_section(plan: Plan, wildcards: Wildcards) -> str:
    """Of which score that runs the network options are chosen, by what, and how images pass through the network."""
    run, score = plan.run(wildcards), wildcards.score
    validation = run.tuned[score].way == "validation"
    return ChooseNetworkOptions.of(
        **_searched(plan, run, score), **_pass(plan, run),
        sets=[f"{d}.{s}" for d, s in plan.validation_sets(run.id)] if validation else [],
        copies=None if validation else plan.tuning[run.id].pseudo_ood).dump()


def network_choice_code(plan: Plan, wildcards: Wildcards) -> dict[str, str]:
    """Code behind the choice of options of a score that runs the network."""
    run = plan.run(wildcards)
    return digest("stages.choose_network_options", f"scores.{run.scores[wildcards.score].module}",
                  *sections.network_code(run.network))


def _scored(score: Score) -> dict[str, Any]:
    """What a section of a score is made of."""
    return {"score": score.module, "name": score.name, "options": score.options}


def _scored_sets(plan: Plan, run: Trained, score: str) -> list[tuple[str, str]]:
    """Sets that a score is computed of: the test sets, and the ID train set where a joined score needs it."""
    train, *tests = plan.sets(run.id)
    return [*tests, *([train] if score in plan.joined(run) else [])]


# -- metrics ------------------------------------------------------------------------------------------------------


def metrics_inputs(plan: Plan, wildcards: Wildcards) -> list[str]:
    """All scores of a network."""
    run = plan.run(wildcards)
    return [paths.of_network(plan, "scores", run, f"/{score}.h5") for score in run.scores]


def metrics_statistics(plan: Plan, wildcards: Wildcards) -> str | list[str]:
    """Class means, for a network whose head is a probe: its accuracy by the nearest of them stands beside."""
    run = plan.run(wildcards)
    given = run.recipe.checkpoint
    probed = given.probe if given else sections.of_method(run).probe
    return paths.of_network(plan, "precompute", run, ".h5") if probed else []


def metrics_section(plan: Plan, wildcards: Wildcards) -> str:
    """Which sets metrics compare, and by which papers' rules."""
    run = plan.run(wildcards)
    id = run.id
    groups: dict[str, list[str]] = {}
    for name, group in plan.ood[id].items():
        groups.setdefault(group, []).append(f"{name}.test")
    parts = plan.parts[id]
    like = {f"{name}.test": f"{one.like}.test" for name, one in parts.items()}
    listed = {f"{name}.test": f"{one.ood}.test" for name, one in parts.items() if one.ood != name}
    confidence = {name: kind for name, score in run.scores.items() if (kind := sections.confidence(score))}
    return ComputeMetrics.of(id=f"{id}.test", groups=groups, compat=plan.compat(id), confidence=confidence,
                             id_like=like, listed=listed, shifted=[f"{name}.test" for name in plan.shifted[id]]).dump()


def metrics_code(plan: Plan, wildcards: Wildcards) -> dict[str, str]:
    """Code behind metrics."""
    return digest("stages.compute_metrics", *sections.rules_code(plan.compat(wildcards.id)))


def imported_inputs(plan: Plan, wildcards: Wildcards) -> dict[str, list[str]]:
    """Another tool's score files, each once, and our stores of their sets."""
    taken = _taken(plan, wildcards)
    return {"files": list(dict.fromkeys(map(str, taken.files.values()))),
            "stores": [paths.store(plan, name, "test") for name in taken.files]}


def imported_section(plan: Plan, wildcards: Wildcards) -> str:
    """The sets by file, in the order of the inputs, since files may move."""
    taken, inputs = _taken(plan, wildcards), imported_inputs(plan, wildcards)
    return ImportScores.of(
        **taken.entry.model_dump(include={"id", "higher_is", "labels", "score", "count"}),
        groups=dict(taken.groups), compat=plan.compat(taken.entry.id),
        raw=[content for _, *content in plan.fingerprints.of([Path(name) for name in inputs["files"]], None)],
        files={name: inputs["files"].index(str(path)) for name, path in taken.files.items()}).dump()


def imported_code(plan: Plan, wildcards: Wildcards) -> dict[str, str]:
    """Code behind metrics of another tool's scores."""
    return digest("stages.import_scores", *sections.rules_code(plan.compat(_taken(plan, wildcards).entry.id)))


def _taken(plan: Plan, wildcards: Wildcards) -> Taken:
    """The score files of another tool that wildcards name."""
    return plan.imported[Key(wildcards.id, wildcards.network, wildcards.recipe, int(wildcards.seed))]


# -- what pictures need -------------------------------------------------------------------------------------------


def distances_section(plan: Plan, wildcards: Wildcards) -> str:
    """How outliers pass through the network that a recipe starts from."""
    run = plan.run(wildcards)
    assert run.parent is not None  # a picture of distances shows recipes that start from a network
    return MeasureDistances.of(**_pass(plan, plan.sibling(run, run.parent))).dump()


def distances_code(plan: Plan, wildcards: Wildcards) -> dict[str, str]:
    """Code behind distances of outliers."""
    return digest("stages.measure_distances", *sections.network_code(plan.run(wildcards).network))


def panels_inputs(plan: Plan, wildcards: Wildcards) -> dict[str, Any]:
    """Both networks of a recipe with pseudo-masks, and the test sets."""
    run = plan.run(wildcards)
    return {"classifier": training.classifier(plan, wildcards),
            "checkpoint": paths.of_network(plan, "models", run, ".pt"),
            "stores": [paths.store(plan, *pair) for pair in plan.sets(run.id)[1:]]}


def panels_section(plan: Plan, wildcards: Wildcards) -> str:
    """How a classifier and the network trained on its pseudo-masks see a few images."""
    run = plan.run(wildcards)
    assert run.recipe.masks is not None  # a picture of panels shows recipes with pseudo-masks
    return MakePanels.of(
        network=sections.network(run.network), normalise=run.recipe.normalise, images=6,
        classifier_normalise=training.classifier_of(plan, run).recipe.normalise,
        options=run.recipe.masks.options).dump()


def panels_code(plan: Plan, wildcards: Wildcards) -> dict[str, str]:
    """Code behind panels."""
    return digest("stages.make_panels", *sections.network_code(plan.run(wildcards).network))
