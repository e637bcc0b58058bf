"""What the keys of a configuration must be to one another: checks of a configuration, of its recipes and of its plan,
each an error that names the key."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

from workflow_scripts.cams.options import MaskOptions
from workflow_scripts.config import fidelity
from workflow_scripts.config.catalogue import Dataset
from workflow_scripts.config.models import Config, Recipe
from workflow_scripts.core import own, plugins
from workflow_scripts.core.errors import OODError, nearest, unknown
from workflow_scripts.stages.sections.tune_options import Sweep
from workflow_scripts.work import declared, released
from workflow_scripts.work.plan import Plan
from workflow_scripts.work.together import images


def plugins_exist(config: Config) -> None:
    """Every network, method, score and picture that is named exists and has the options that are given."""
    for i, network in enumerate(config.networks):
        plugins.find("models", network.model, f"networks[{i}].model")
        options = plugins.parse_options("models", network.model, network.options, f"networks[{i}].options")
        if network.model == "own":
            own.check_factory(options.factory, options.folder, f"networks[{i}].options.factory")
    for i, recipe in enumerate(config.recipes):
        if recipe.method:
            plugins.find("methods", recipe.method, f"recipes[{i}].method")
            if own.is_file(recipe.method):
                own.check_file("methods", recipe.method, f"recipes[{i}].method")
            plugins.parse_options("methods", recipe.method, recipe.options, f"recipes[{i}].options")
            for bug in recipe.defects or ():
                if bug not in plugins.spec("methods", recipe.method).switches:
                    raise unknown(f"recipes[{i}].defects", bug, plugins.spec("methods", recipe.method).switches)
        if recipe.masks is not None:
            MaskOptions.load(json.dumps(recipe.masks.options), f"recipes[{i}].masks.options")
    for i, score in enumerate(config.scores):
        plugins.find("scores", score.module, f"scores[{i}].{'score' if score.score else 'name'}")
        if own.is_file(score.module):
            own.check_file("scores", score.module, f"scores[{i}].score")
        plugins.parse_options("scores", score.module, score.options, f"scores[{i}].options")
        if score.tune is not None:
            sweep = Sweep.load(json.dumps(score.tune.sweep), f"scores[{i}].tune.sweep")
            if not plugins.spec("scores", score.module).tune:
                raise OODError(f"scores[{i}].tune: no options of '{score.module}' can be chosen by a sweep; "
                               "leave the key out")
            for option in plugins.spec("scores", score.module).tune:
                if not hasattr(sweep, option):
                    raise OODError(f"scores[{i}].tune: a sweep has no values to try for option {option} of "
                                   f"'{score.module}'; give Sweep in stages/sections/tune_options.py some")

    for i, paper in enumerate(config.papers):
        for k, picture in enumerate(paper.pictures):
            where = f"papers[{i}].pictures[{k}]"
            plugins.find("pictures", picture.picture, f"{where}.picture")
            plugins.parse_options("pictures", picture.picture, picture.options, f"{where}.options")


def gpus(config: Config) -> None:
    """A batch that several GPUs share has an image for each."""
    for i, recipe in enumerate(config.recipes):
        count = config.gpus_of(recipe)
        if recipe.training and recipe.training.batch_size < count:
            raise OODError(f"recipes[{i}].training.batch_size: {recipe.training.batch_size} images cannot be shared by "
                           f"{count} GPUs; lower gpus")


def weights(recipe: Recipe, learned: Recipe) -> None:
    """A recipe's outliers are selected by weights that another learned: of the images of one set."""
    where = f"recipe '{recipe.name}', key outliers.select.weights"
    if not plugins.spec("methods", learned.method).learns_weights:
        raise OODError(f"{where}: recipe '{learned.name}' (method {learned.method or 'none'}) learns no weights of "
                       "its outliers; a recipe of method resample does")
    theirs, ours = (r.outliers.dataset if r.outliers else None for r in (learned, recipe))
    if theirs != ours:
        raise OODError(f"{where}: the weights are of '{theirs}', the outliers of '{ours}'")


def check_single_seed(recipe: Recipe, seeds: list[int], where: str) -> None:
    """A file of weights is one network, whose copies have no spread over seeds."""
    given = recipe.checkpoint
    if given and len(seeds) > 1 and not (given.fresh or given.probe or given.head == "new"):
        raise OODError(f"{where}: recipe '{recipe.name}' reads one file of weights, so seeds {seeds} would count "
                       f"one network {len(seeds)} times; give this experiment seeds: [0]")


def candidates(among: Sequence[Recipe], where: str) -> str:
    """Refuse candidates of a choice that one set of held-out images cannot measure.

    Returns:
        Their outlier set.

    Raises:
        OODError: a candidate that is not trained, or without or with another normalise, validation or outlier set.
    """
    def shared(recipe: Recipe) -> dict[str, Any]:
        return {"normalise": recipe.normalise, "validation": recipe.validation,
                "outliers.dataset": recipe.outliers and recipe.outliers.dataset}

    for recipe in among:
        if not recipe.method:
            raise OODError(f"{where}: '{recipe.name}' trains nothing; name recipes with a method")
        for (key, value), first in zip(shared(recipe).items(), shared(among[0]).values(), strict=True):
            if value is None or value != first:
                raise OODError(f"{where}: '{recipe.name}' {'lacks' if value is None else 'has another'} {key}; all "
                               "need the same")
    pool = among[0].outliers
    assert pool is not None  # else it lacks outliers.dataset
    return pool.dataset


GROUPS = {"id": "the ID set's own rows", "average": "means over sets", "all": "the mean over all sets"}
"""Names that no group of OOD sets may have, and what has them."""


def several_images(row: Dataset, config: Config, where: str) -> None:
    """A test set has two images at least: a share of one can be 0 or 1 alone.

    Raises:
        OODError: the configuration says that it has one; naming the key.
    """
    for key, count in ((f"dataset '{row.name}', key counts.test", row.counts.get("test")),
                       (f"dataset '{row.name}', key sample.n", row.sample and row.sample.n),
                       ("limit.images", config.limit.images if not row.classes else None)):
        if count == 1:
            raise OODError(f"{where}: '{row.name}' has one test image ({key}: 1), with which no score can be measured; "
                           "give it two at least")


def papers(config: Config) -> None:
    """Where a configuration says something about its papers, each has one entry."""
    names = [paper.name for paper in config.papers]
    for i, name in enumerate(names):
        if name in names[:i]:
            raise OODError(f"papers[{i}].name: '{name}' has an entry already; join the two")
    for i, experiment in enumerate(config.experiments):
        if names and experiment.paper not in names:
            raise unknown(f"experiments[{i}].paper", experiment.paper, names)


def seeds_of(config: Config) -> None:
    """ID sets with seeds of their own have experiments."""
    ids = {experiment.id for experiment in config.experiments}
    for id in config.seeds_of:
        if id not in ids:
            raise unknown("seeds_of: ID set", id, ids)


def claims(config: Config) -> None:
    """A row of a paper's claim that does not run has no card; one that is nearly the name of another is misspelt.

    Raises:
        OODError: a training or a score that there is none of but for a letter or two; the nearest is named.
    """
    known = {"recipe": {recipe.name for recipe in config.recipes},
             "score": {name for score in config.scores for name in (score.name, f"{score.name}_fused")}}
    shown = {experiment.paper for experiment in config.experiments}
    for paper in config.papers:
        for side in ("ours", "baseline") if paper.claim and paper.name in shown else ():
            for key, names in known.items():
                found = getattr(getattr(paper.claim, side), key)
                if found not in names and nearest(found, names):
                    raise unknown(f"paper '{paper.name}', key claim.{side}.{key}", found, names)


def headlines(config: Config) -> None:
    """The score that reliability figures are of is one of its paper's."""
    for paper in config.papers:
        scored = {score for e in config.experiments if e.paper == paper.name for score in e.scores}
        if paper.reliability and scored and paper.headline and paper.headline not in scored:
            raise unknown(f"paper '{paper.name}', key headline", paper.headline, scored)


def outliers(plan: Plan) -> None:
    """Outliers that are also scored would make the test a training set; too few fill no batch."""
    @cache
    def images(dataset: str, split: str) -> str:
        """What a set consists of, whatever its name: rows of several names may stand for the very same images."""
        return repr({**plan.datasets[dataset].definition(split), "dataset": "", "split": "", "count": 0})

    for run in {(run.id, run.path_name): run for run in plan.runs.values()}.values():
        outliers, given = run.outliers, run.recipe.outliers
        if not outliers or not given:
            continue
        recipe, where = run.recipe, f"recipe '{run.recipe.name}', key outliers"
        for name, split in [(run.id, "train"), *((n, "test") for n in (run.id, *plan.ood.get(run.id, {})))]:
            if name == outliers or images(outliers, "train") == images(name, split):
                role = "the ID set" if name == run.id else "an OOD test set"
                other = "" if name == outliers else f" (both are the images of '{name}')"
                raise OODError(f"{where}.dataset: '{outliers}' is {role} of '{run.id}'{other}; training on it "
                               "would make its test meaningless")
        count, size = plan.datasets[outliers].counts.get("train"), given.batch_size
        if count is not None and count < size:
            raise OODError(f"{where}.batch_size: {size} is more than the {count} images of '{outliers}'; lower it "
                           "or take a larger outlier set")
        options = plugins.parse_options("methods", recipe.method, recipe.options, where)
        plugins.within(plugins.spec("methods", recipe.method).at_most, options, recipe.model_dump(),
                       f"recipe '{recipe.name}', key ")


def resident(plan: Plan) -> None:
    """What is held on the device by a key of its own is no store's, which is held there anyway."""
    for run in plan.runs.values():
        name = run.recipe.images or run.id
        if run.recipe.resident and plan.datasets[name].pixels != "decoded":
            raise OODError(f"recipe '{run.recipe.name}', key resident: the images of '{name}' are stored, and lie on "
                           "the device as they are; leave it out, or give the dataset pixels: decoded")


def switches(plan: Plan) -> None:
    """Each switch asked for everywhere must concern something."""
    used = {bug for run in plan.runs.values() for bug in declared.switches(run.recipe)}
    for bug in plan.config.fidelity.released:
        if bug in released.SWITCHES and not any((bug,) in found for found in plan.otherwise.values()):
            raise OODError(f"fidelity.released: no ID set of this configuration has a test set that '{bug}' changes "
                           f"({fidelity.defects()[bug]}); see docs/datasets.md")
        if bug == "goe.2g-8" and not any("goe" in plan.compat(id) for id in plan.ood):
            raise OODError("fidelity.released: no experiment of this configuration counts by G-OE's rules, which "
                           "'goe.2g-8' concerns; add to one compat: [goe]")
        if bug == "bgresample.1g-10" and not any(s.module == "msp" and s.options.get("precision") == "float32"
                                                 for run in plan.runs.values() for s in run.scores.values()):
            raise OODError("fidelity.released: 'bgresample.1g-10' is a score of its own; add to scores: {name: "
                           "msp_float32, score: msp, options: {precision: float32}} and name it in an experiment")
        if bug not in fidelity.of_evaluation() and bug not in used:
            raise OODError(f"fidelity.released: no recipe of this configuration has a switch for '{bug}'")


def published(plan: Plan) -> None:
    """Weights from files fit their ID set's classes, and are tested on no images that they were tuned on.

    Raises:
        OODError: the recipe, and what does not go together.
    """
    for run in plan.runs.values():
        given = run.recipe.checkpoint
        if given is None:
            continue
        where, classes = f"recipe '{run.recipe.name}' on '{run.id}'", plan.datasets[run.id].classes
        number = classes if isinstance(classes, int) else len(classes)
        if given.classes and given.head == "load" and given.classes != number:
            raise OODError(f"{where}: its head has {given.classes} outputs, the ID set has {number} classes; name an "
                           "ID set of its classes, or set checkpoint.head: new")
        for name in given.seen:
            if name not in plan.datasets:
                raise unknown(f"{where}, key checkpoint.seen", name, plan.datasets)
            row = plan.datasets[name]
            known = {images(row, split) for split in row.splits}
            for test in plan.ood[run.id]:
                if test == name or images(plan.datasets[test], "test") in known:
                    raise OODError(f"{where}: it was tuned on the images of '{name}', which '{test}' tests; leave the "
                                   "set or the network out")
