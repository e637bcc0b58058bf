"""From a configuration to the list of work: every network to train, every set to score, every table to make.

The Snakefile and commands call :func:`read_plan`; all else takes the :class:`workflow_scripts.work.plan.Plan` that it
returns.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from workflow_scripts.config import catalogue, image_lists
from workflow_scripts.config.catalogue import Dataset
from workflow_scripts.config.fidelity import resolve, suffix
from workflow_scripts.config.load import load_config
from workflow_scripts.config.models import Config, Experiment, Network, Recipe, Score
from workflow_scripts.config.raw import Source, load_sources
from workflow_scripts.core.errors import OODError, nearest, unknown
from workflow_scripts.work import checks, declared, fusion, imported, limit, only, released, together, tuning
from workflow_scripts.work.plan import Key, LeftOut, Plan, Trained, Tuned, compat, download, lacking

Entry = TypeVar("Entry", Network, Recipe, Score)
Placed = TypeVar("Placed", Recipe, Score)
N = TypeVar("N")
K = TypeVar("K")
V = TypeVar("V")


def read_plan(raw: dict[str, Any], root: Path, environment: Mapping[str, str] = os.environ,
              here: Path | None = None) -> Plan:
    """The plan of a configuration.

    Args:
        raw: content of the configuration files with ``--config`` over it (:func:`workflow_scripts.config.load.given`).
        root: the repository.
        environment: names the data root (``OOD_DATA``) where the configuration does not.
        here: the folder where the command was typed, which a relative data root lies in; ``None``: the current one.

    Raises:
        OODError: the configuration, the dataset table or the data root is not in order.
    """
    config = load_config(raw, root)
    datasets = catalogue.load(root / "config" / "datasets.yaml", [config.datasets])
    folder = _data_root(config.data_root, environment.get("OOD_DATA"), here or Path.cwd())
    raw_files = {**load_sources(root / "config" / "sources.yaml"), **image_lists.sources()}
    return expand(config, catalogue.at_hand(datasets, folder), folder, raw_files)


def _data_root(configured: str | None, environment: str | None, here: Path) -> Path | None:
    """The folder of the raw data, of the configuration or else the environment.

    Raises:
        OODError: there is no such folder. (Else all that it should hold would be downloaded.)
    """
    name, value = ("data_root", configured) if configured else ("the environment variable OOD_DATA", environment)
    if not value:
        return None
    folder = Path(os.path.normpath(here / Path(value).expanduser()))
    if not folder.is_dir():
        if folder.is_file():
            raise OODError(f"{name}: {folder} is a file, expected the folder of the raw data")
        beside = nearest(folder.name, os.listdir(folder.parent)) if os.access(folder.parent, os.R_OK) else ""
        raise OODError(f"{name}: there is no folder {folder}{beside}")
    return folder


def expand(config: Config, datasets: Mapping[str, Dataset], data_root: Path | None = None,
           sources: Mapping[str, Source] | None = None) -> Plan:
    """All work of a configuration.

    Args:
        config: the checked configuration.
        datasets: rows of the dataset table by name.
        data_root: folder of the raw data, where there is one.
        sources: rows of the table of raw files by name, which can be downloaded.

    Raises:
        OODError: a name that nothing defines, two definitions where one is needed, options a plugin does not have.
    """
    checks.plugins_exist(config)
    checks.gpus(config)
    work = _Expansion(config, datasets, data_root)
    for number, experiment in enumerate(config.experiments):
        work.enter(experiment, f"experiments[{number}]")
    runs = {key: replace(run, scores=MappingProxyType(work.scores.get(key, {})),
                         tuned=MappingProxyType(work.tuned.get(key, {}))) for key, run in work.runs.items()}
    otherwise = {id: released.otherwise(datasets, sets, config.fidelity.released) for id, sets in work.ood.items()}
    ood = {id: _with_others(sets, otherwise[id]) for id, sets in work.ood.items()}
    for id, sets in ood.items():
        limit.rules(id, compat(config.experiments, id), sets, datasets, config)
    results = [(experiment, [runs[key] for key in keys]) for experiment, keys in work.results]
    recipes = [*(run.recipe for run in runs.values()), *work.lacking.values()]
    plan = Plan(
        config, MappingProxyType(dict(datasets)), data_root,
        MappingProxyType({**(sources or {}), **_weights(recipes, data_root)}),
        runs=MappingProxyType(runs), ood=_frozen(ood), tuning=MappingProxyType(tuning.collect(config.experiments)),
        otherwise=MappingProxyType({id: _frozen(found) for id, found in otherwise.items()}),
        parts=_frozen({id: released.parts(datasets, id, sets) if "scood" in compat(config.experiments, id) else {}
                       for id, sets in ood.items()}),
        shifted=MappingProxyType({id: _shifted(config.experiments, id, datasets, sets) for id, sets in ood.items()}),
        imported=MappingProxyType(imported.collect(config, ood, runs)),
        results=tuple((experiment, tuple(run for run in reported if only.keeps(config.only, run)))
                      for experiment, reported in results),
        left_out=tuple(one for one in work.left_out if only.keeps_left_out(config.only, one)))
    checks.outliers(plan)
    checks.resident(plan)
    together.check(plan)
    tuning.check(plan)
    checks.switches(plan)
    only.check(config, runs.values(), work.left_out)
    only.check_some(plan)
    checks.papers(config)
    checks.seeds_of(config)
    checks.headlines(config)
    checks.claims(config)
    return plan


class _Expansion:
    """What experiments ask for, as far as they are entered."""

    def __init__(self, config: Config, datasets: Mapping[str, Dataset], data_root: Path | None):
        self.config = config
        self.datasets = datasets
        self.data_root = data_root
        self.runs: dict[Key, Trained] = {}
        """Networks, yet without their scores."""
        self.scores: dict[Key, dict[str, Score]] = {}
        self.tuned: dict[Key, dict[str, Tuned]] = {}
        self.ood: dict[str, dict[str, str]] = {}
        self.results: list[tuple[Experiment, list[Key]]] = []
        self.lacking: dict[Key, Recipe] = {}
        """Networks that are left out, and the recipe whose optional weights are not there."""
        self.left_out: list[LeftOut] = []

    def enter(self, experiment: Experiment, where: str) -> None:
        """Everything that one experiment asks for."""
        self._enter_sets(experiment, where)
        keys = []
        seeds = _seeds(experiment, self.config)
        for network_name in experiment.networks:
            named = _named(self.config.networks, network_name, f"{where}.networks")
            network = _only_one(named, f"{where}.networks: '{network_name}'")
            for recipe_name in experiment.recipes:
                for seed in seeds:
                    run = self._train(experiment.id, network, recipe_name, seed, f"{where}.recipes")
                    if run is None:
                        self._leave_out(experiment, Key(experiment.id, network.name, recipe_name, seed))
                        continue
                    checks.check_single_seed(run.recipe, seeds, where)
                    self._enter_scores(run, experiment, where)
                    keys.append(run.key)
        self.results.append((experiment, keys))

    def _leave_out(self, experiment: Experiment, key: Key) -> None:
        """A network that lacks optional weights; other seeds of it are not listed again."""
        one = LeftOut(experiment.paper, key, _fitting(self.config.recipes, key.recipe, "", key.id, key.network).label,
                      self.lacking[key])
        if not any(other.paper == one.paper and other.key[:3] == key[:3] for other in self.left_out):
            self.left_out.append(one)

    def _enter_sets(self, experiment: Experiment, where: str) -> None:
        """The ID set and the OOD sets of an experiment."""
        _dataset(self.datasets, experiment.id, f"{where}.id", "train", "test")
        names = [name for group in experiment.ood.values() for name in group]
        if not names:
            raise OODError(f"{where}.ood: no OOD set; name at least one below a group, e.g. far: [svhn]")
        for group, members in experiment.ood.items():
            for name in members:
                _dataset(self.datasets, name, f"{where}.ood.{group}", "test")
                if name == experiment.id:
                    raise OODError(f"{where}.ood.{group}: '{name}' is the ID set of this experiment")
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise OODError(f"{where}.ood: '{twice}' stands there twice")
        for group in experiment.ood:
            if group in checks.GROUPS:
                raise OODError(f"{where}.ood.{group}: tables call {checks.GROUPS[group]} so; name the group otherwise, "
                               "e.g. near or far")
        for name in names:
            checks.several_images(self.datasets[name], self.config, f"{where}.ood")
        groups = self.ood.setdefault(experiment.id, {})
        for group, members in experiment.ood.items():
            for name in members:
                if groups.setdefault(name, group) != group:
                    raise OODError(f"{where}.ood.{group}: '{name}' is in group '{groups[name]}' in another experiment "
                                   f"on '{experiment.id}'; a set has one group")

    def _enter_scores(self, run: Trained, experiment: Experiment, where: str) -> None:
        """An experiment's scores of one network."""
        scores = dict(self.scores.get(run.key, {}))
        for name in experiment.scores:
            score = _fitting(self.config.scores, name, f"{where}.scores", run.id, run.network.name)
            scores[name] = limit.score(score, run.id, self.datasets, self.config)
        joined = fusion.join(scores, experiment, run.recipe, where)
        tuned = self.tuned.setdefault(run.key, {})
        for name, (score, how) in tuning.chosen(joined, tuned, experiment, where).items():
            joined[name], tuned[name] = score, how
        self.scores[run.key] = joined

    def _train(self, id: str, network: Network, name: str, seed: int, where: str,
               children: tuple[str, ...] = ()) -> Trained | None:
        """The network to train, and the recipes it starts from, entered once; none where optional weights of it or of
        those are not there."""
        if name in children:
            raise OODError(f"{where}: {' -> '.join([*children, name])} goes round in a circle (key `parent`)")
        recipe = _fitting(self.config.recipes, name, where, id, network.name)
        if recipe.select_best:
            return self._select_best(id, network, recipe, recipe.select_best.among, seed, (*children, name))
        if lacking(recipe, self.data_root, self.config.resources):
            self.lacking[Key(id, network.name, name, seed)] = recipe
            return None
        defects = _defects(recipe, self.config)
        key = Key(id, network.name, recipe.name + suffix(defects), seed)
        if key in self.runs:
            return self.runs[key]

        def before(other: str | None, said_by: str) -> Trained | None:
            """The network of a recipe that a key of this one names."""
            return self._train(id, network, other, seed, f"recipe '{name}', key {said_by}",
                               (*children, name)) if other else None

        select = recipe.outliers.select if recipe.outliers else None
        named = (recipe.parent, select.weights if select else None, recipe.masks.classifier if recipe.masks else None)
        parent, weights, classifier = map(before, named, ("parent", "outliers.select.weights", "masks.classifier"))
        if self._lacks(key._replace(recipe=name), named):
            return None
        if weights:
            checks.weights(recipe, weights.recipe)
        if recipe.images:
            _dataset(self.datasets, recipe.images, f"recipe '{name}', key images", "train")
        outliers = declared.outliers(recipe, defects)
        if outliers:
            _dataset(self.datasets, outliers, f"recipe '{name}', key outliers.dataset", "train")
        recipe = limit.recipe(recipe, id, self.datasets, self.config)
        self.runs[key] = Trained(
            id, network, recipe, key.recipe, defects, parent.path_name if parent else None, seed, scores={},
            outliers=outliers, classifier=classifier.path_name if classifier else None,
            weights=weights.path_name if weights else None)
        return self.runs[key]

    def _select_best(self, id: str, network: Network, recipe: Recipe, names: Sequence[str], seed: int,
                     children: tuple[str, ...]) -> Trained | None:
        """A recipe that takes the best of others, and those; none where one of them is left out."""
        where = f"recipe '{recipe.name}', key select_best.among"
        found = [self._train(id, network, name, seed, where, children) for name in names]
        if self._lacks(Key(id, network.name, recipe.name, seed), names):
            return None
        among = [run for run in found if run]
        pool = checks.candidates([run.recipe for run in among], where)
        if "val" not in _dataset(self.datasets, pool, where).splits:
            raise OODError(f"{where}: dataset '{pool}' holds no outliers out; give its row hold_out, e.g. "
                           "hold_out: 5000")
        defects = _defects(recipe, self.config)
        run = Trained(id, network, recipe.model_copy(update={"normalise": among[0].recipe.normalise}),
                      recipe.name + suffix(defects), defects, None, seed, scores={},
                      among=tuple(run.path_name for run in among))
        return self.runs.setdefault(run.key, run)

    def _lacks(self, key: Key, names: Iterable[str | None]) -> bool:
        """Whether one of the recipes that a network needs is left out, and so is the network."""
        absent = [recipe for name in names if name and (recipe := self.lacking.get(key._replace(recipe=name)))]
        if absent:
            self.lacking[key] = absent[0]
        return bool(absent)


def _seeds(experiment: Experiment, config: Config) -> list[int]:
    """Seeds of an experiment: those of its ID set, else its own, else those of the configuration."""
    given = config.seeds if experiment.seeds is None else experiment.seeds
    given = config.seeds_of.get(experiment.id, given)
    return list(range(given)) if isinstance(given, int) else given


def _defects(recipe: Recipe, config: Config) -> tuple[str, ...]:
    """The defects of its release that a recipe reproduces, which its name in paths carries."""
    if recipe.select_best:  # it carries what any of those reproduces that it takes its weights from
        named = [r for r in config.recipes if r.name in recipe.select_best.among]
        return tuple(sorted({bug for r in named for bug in _defects(r, config)}))
    # G-OE's defects are those of its own trainings; plain pretraining shares the method but has no outliers
    everywhere = [b for b in config.fidelity.released if recipe.outliers or not b.startswith("goe.")]
    return resolve(everywhere, recipe.released, declared.switches(recipe), f"recipe '{recipe.name}'")


def _fitting(entries: Sequence[Placed], name: str, where: str, id: str, network: str) -> Placed:
    """The one entry called ``name`` that is for this ID set and network."""
    fitting = [entry for entry in _named(entries, name, where) if entry.where.matches(id, network)]
    return _only_one(fitting, f"{where}: '{name}'", f" for ID set '{id}' and network '{network}'")


def _named(entries: Sequence[Entry], name: str, where: str) -> list[Entry]:
    """The entries called ``name``, at least one."""
    named = [entry for entry in entries if entry.name == name]
    if not named:
        raise unknown(where, name, {entry.name for entry in entries})
    return named


def _only_one(entries: Sequence[Entry], what: str, place: str = "") -> Entry:
    if len(entries) != 1:
        problem = f"{len(entries)} definitions" if entries else "no definition"
        raise OODError(f"{what} has {problem}{place}; exactly one must fit (key `where`)")
    return entries[0]


def _dataset(datasets: Mapping[str, Dataset], name: str, where: str, *splits: str) -> Dataset:
    """The row of a dataset that has these splits."""
    if name not in datasets:
        raise unknown(where, name, datasets)
    row = datasets[name]
    for split in splits:
        if split not in row.splits:
            raise OODError(f"{where}: dataset '{name}' has no {split} split (it has: {', '.join(row.splits)})")
    catalogue.archive_row(row, datasets)
    return row


def _shifted(experiments: Sequence[Experiment], id: str, datasets: Mapping[str, Dataset],
             ood: Mapping[str, str]) -> tuple[str, ...]:
    """The sets of shifted ID images that experiments on an ID set name, each once.

    Raises:
        OODError: there is no such set, it is an OOD set too, or the rule that counts them has none.
    """
    mine = [experiment for experiment in experiments if experiment.id == id]
    names = tuple(dict.fromkeys(name for experiment in mine for name in experiment.shifted))
    for name in names:
        _dataset(datasets, name, f"shifted of the experiments on '{id}'", "test")
        if name in ood or name == id:
            raise OODError(f"shifted of the experiments on '{id}': '{name}' is its {'OOD' if name in ood else 'ID'} "
                           "set; an image counts on one side")
    if bool(names) != ("openood-fs" in compat(mine, id)):
        raise OODError(f"experiments on '{id}': shifted and compat: [openood-fs] go together; the rule counts the sets "
                       "of shifted ID images as ID")
    return names


def _with_others(sets: Mapping[str, str], otherwise: Mapping[tuple[str, ...], Mapping[str, str]]) -> dict[str, str]:
    """OOD sets and their groups with the sets that a release has in their place, in groups of their own."""
    groups = dict(sets)
    for defects, others in otherwise.items():
        for name, other in others.items():
            groups.setdefault(other, sets[name] + suffix(defects))
    return groups


def _weights(recipes: Iterable[Recipe], data_root: Path | None) -> dict[str, Source]:
    """The downloads of released weights that recipes name and that do not lie below the data root."""
    found: dict[str, Source] = {}
    for recipe in {recipe.checkpoint.file: recipe for recipe in recipes if recipe.checkpoint}.values():
        given, name = recipe.checkpoint, download(recipe, data_root)
        if given and name:
            whole = given.sha256 if given.sha256 and len(given.sha256) == 64 else None
            sums = [f"{kind}:{value}" for kind, value in (("sha256", whole), ("git", given.git_blob)) if value]
            if name in found and found[name].urls != [given.url]:
                raise OODError(f"recipe '{recipe.name}', key checkpoint.file: downloads are kept by their names, and "
                               f"'{name}' is also the name of {found[name].urls[0]}; give the file another name")
            found[name] = Source(
                name=name, about=f"weights of recipe {recipe.name}", urls=[given.url], checksum=sums,
                checksum_from="the configuration" if sums else "")
    return found


def _frozen(table: Mapping[N, Mapping[K, V]]) -> Mapping[N, Mapping[K, V]]:
    """A table and its rows for reading only."""
    return MappingProxyType({name: MappingProxyType(dict(row)) for name, row in table.items()})
