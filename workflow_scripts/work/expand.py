"""From a configuration to the list of work: every network to train, every set to score, every table to make.

:class:`Plan` is the one place that knows what to run; :mod:`workflow_scripts.wiring` turns it into the inputs
and parameters of jobs.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

from workflow_scripts.config import catalogue, only
from workflow_scripts.config.catalogue import Dataset
from workflow_scripts.config.fidelity import resolve, suffix
from workflow_scripts.config.load import load_config
from workflow_scripts.config.models import Config, Experiment, Network, Paper, Recipe, Score
from workflow_scripts.config.raw import Source, load_sources, to_place
from workflow_scripts.core import plugins, sources
from workflow_scripts.core.errors import OODError, unknown
from workflow_scripts.work import checks, extras, fusion, imported, released

Key = tuple[str, str, str, int]  # ID set, network, recipe (as in paths), seed


@dataclass
class Trained:
    """One network to train: a row of the work."""

    id: str
    network: Network
    recipe: Recipe
    path_name: str
    """The recipe's name with the defects it reproduces: `npos+B1`."""
    released: tuple[str, ...]
    parent: str | None
    """Path name of the recipe whose weights are the start."""
    seed: int
    classifier: str | None = None
    """Path name of the recipe whose network makes its label maps."""
    scores: dict[str, Score] = field(default_factory=dict)
    among: tuple[str, ...] = ()
    """Path names of the recipes of which it takes the best."""
    weights: str | None = None
    """Path name of the recipe that learned the weights of its outliers."""

    @property
    def key(self) -> Key:
        return (self.id, self.network.name, self.path_name, self.seed)


def read_plan(raw: dict[str, Any], root: Path, environment: Mapping[str, str] = os.environ,
              place: Path | None = None) -> Plan:
    """The plan of a configuration as Snakemake read it.

    Args:
        raw: content of the configuration file, with ``--config`` over it.
        root: the repository.
        environment: names the data root (``OOD_DATA``) where the configuration does not.
        place: folder of the configuration file, which ``./`` and ``../`` in it are relative to; ``None``: ``root``.

    Raises:
        OODError: the configuration, the dataset table or the data root is not in order.
    """
    config = load_config(raw, root, place)
    datasets = catalogue.load(root / "config" / "datasets.yaml", [config.datasets])
    data_root = config.data_root or environment.get("OOD_DATA")
    folder = Path(data_root).expanduser() if data_root else None
    if config.data_root and not folder.is_dir():
        raise OODError(f"data_root: there is no folder {folder}")
    return Plan(config, datasets, folder, load_sources(root / "config" / "sources.yaml"))


class Plan:
    """All work of a configuration.

    Args:
        config: the checked configuration.
        datasets: rows of the dataset table by name.
        data_root: folder of the raw data, where there is one.
        sources: rows of the table of raw files by name, which can be downloaded.

    Raises:
        OODError: a name that nothing defines, two definitions where one is needed, options a plugin does not have.
    """

    def __init__(self, config: Config, datasets: dict[str, Dataset], data_root: Path | None = None,
                 sources: dict[str, Source] | None = None):
        self.sources = sources or {}
        self.config = config
        self.datasets = datasets
        self.data_root = data_root
        self.runs: dict[Key, Trained] = {}
        self.ood: dict[str, dict[str, str]] = {}
        """OOD sets of each ID set and their groups, over all experiments: each network of that ID set sees them all."""
        checks.plugins_exist(self)
        checks.gpus(self)
        self.switches_used: set[str] = set()
        for number, experiment in enumerate(config.experiments):
            self._expand(experiment, f"experiments[{number}]")
        self.relisted = {id: released.relisted(datasets, sets) for id, sets in self.ood.items()}
        """OOD set -> the same set by the lists of CIFAR-100's benchmark, which G-OE's code takes for every ID set."""
        if "goe.2g-1" in config.fidelity.released:
            for id, sets in self.relisted.items():
                self.ood[id] |= {other: f"{self.ood[id][name]}+2g-1" for name, other in sets.items()
                                 if other not in self.ood[id]}
        self.imported = imported.collect(self)
        """Score files of other tools, which stand in a paper's table."""
        checks.outliers(self)
        checks.switches(self)
        only.check(self)
        checks.headlines(self)

    # -- expansion ------------------------------------------------------------------------------------------------

    def _expand(self, experiment: Experiment, where: str) -> None:
        id_set = self._dataset(experiment.id, f"{where}.id", "train", "test")
        names = [name for group in experiment.ood.values() for name in group]
        if not names:
            raise OODError(f"{where}.ood: no OOD set; name at least one below a group, e.g. far: [svhn]")
        for group, members in experiment.ood.items():
            for name in members:
                self._dataset(name, f"{where}.ood.{group}", "test")
                if name == experiment.id:
                    raise OODError(f"{where}.ood.{group}: '{name}' is the ID set of this experiment")
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise OODError(f"{where}.ood: '{twice}' stands there twice")
        known = self.ood.setdefault(experiment.id, {})
        for group, members in experiment.ood.items():
            for name in members:
                if known.setdefault(name, group) != group:
                    raise OODError(f"{where}.ood.{group}: '{name}' is in group '{known[name]}' in another experiment "
                                   f"on '{experiment.id}'; a set has one group")
        for network_name in experiment.networks:
            network = self._one(self.config.networks, network_name, f"{where}.networks")
            for recipe_name in experiment.recipes:
                for seed in self.seeds(experiment):
                    run = self._train(id_set.name, network, recipe_name, seed, f"{where}.recipes")
                    checks.counted_once(run, self.seeds(experiment), where)
                    for score in experiment.scores:
                        run.scores[score] = self._one(self.config.scores, score, f"{where}.scores",
                                                      experiment.id, network_name)
                    fusion.join(self, run, experiment, where)

    def _train(self, id: str, network: Network, name: str, seed: int, where: str,
               children: tuple[str, ...] = ()) -> Trained:
        """The network to train, and the recipes it starts from, entered once."""
        if name in children:
            raise OODError(f"{where}: {' -> '.join([*children, name])} goes round in a circle (key `parent`)")
        recipe = self._one(self.config.recipes, name, where, id, network.name)
        if recipe.choose:
            return self._choose(id, network, recipe, seed, (*children, name))
        path_name, defects = self._named(recipe)
        key = (id, network.name, path_name, seed)
        if key not in self.runs:
            select = recipe.outliers.select if recipe.outliers else None
            before = {"parent": recipe.parent, "outliers.select.weights": select and select.weights,
                      "masks.classifier": recipe.masks and recipe.masks.classifier}
            parent, weights, classifier = (
                self._train(id, network, other, seed, f"recipe '{name}', key {where}", (*children, name)).path_name
                if other else None for where, other in before.items())
            self.runs[key] = Trained(id, network, recipe, path_name, defects, parent, seed, weights=weights,
                                     classifier=classifier)
            if weights:
                checks.weights(self, self.runs[key])
            if recipe.images:
                self._dataset(recipe.images, f"recipe '{name}', key images", "train")
            outliers = self.outliers(self.runs[key])
            if outliers:
                self._dataset(outliers, f"recipe '{name}', key outliers.dataset", "train")
        return self.runs[key]

    def _choose(self, id: str, network: Network, recipe: Recipe, seed: int, children: tuple[str, ...]) -> Trained:
        """A recipe that takes the best of others, and those."""
        where = f"recipe '{recipe.name}', key choose.among"
        among = [self._train(id, network, name, seed, where, children) for name in recipe.choose.among]
        extras.check_candidates(among, where)
        first = among[0].recipe
        outliers = first.outliers.dataset
        if "val" not in self._dataset(outliers, where).splits:
            raise OODError(f"{where}: dataset '{outliers}' holds no outliers out; give its row hold_out, e.g. "
                           "hold_out: 5000")
        path_name, defects = self._named(recipe)
        run = Trained(id, network, recipe.model_copy(update={"normalise": first.normalise}), path_name, defects, None,
                      seed, among=tuple(r.path_name for r in among))
        return self.runs.setdefault(run.key, run)

    def _named(self, recipe: Recipe) -> tuple[str, tuple[str, ...]]:
        if recipe.choose:  # it carries what any of those reproduces that it takes its weights from
            named = [r for r in self.config.recipes if r.name in recipe.choose.among]
            defects = tuple(sorted({bug for r in named for bug in self._named(r)[1]}))
            return recipe.name + suffix(defects), defects
        switches = plugins.spec("methods", recipe.method).switches if recipe.method else ()
        self.switches_used.update(switches)
        # G-OE's defects are those of its own trainings; plain pretraining shares the method but has no outliers
        everywhere = [b for b in self.config.fidelity.released if recipe.outliers or not b.startswith("goe.")]
        defects = resolve(everywhere, recipe.released, switches, f"recipe '{recipe.name}'")
        return recipe.name + suffix(defects), defects

    def _one(self, entries: list, name: str, where: str, id: str | None = None, network: str | None = None) -> Any:
        """The one entry called ``name`` that is for this ID set and network."""
        named = [e for e in entries if e.name == name]
        if not named:
            raise unknown(where, name, {e.name for e in entries})
        fitting = [e for e in named if id is None or e.where.matches(id, network)]
        if len(fitting) != 1:
            place = f" for ID set '{id}' and network '{network}'" if id else ""
            problem = "no definition" if not fitting else f"{len(fitting)} definitions"
            raise OODError(f"{where}: '{name}' has {problem}{place}; exactly one must fit (key `where`)")
        return fitting[0]

    def _dataset(self, name: str, where: str, *splits: str) -> Dataset:
        if name not in self.datasets:
            raise unknown(where, name, self.datasets)
        for split in splits:
            if split not in self.datasets[name].splits:
                raise OODError(f"{where}: dataset '{name}' has no {split} split (it has: "
                               f"{', '.join(self.datasets[name].splits)})")
        catalogue.archive_row(self.datasets[name], self.datasets)
        return self.datasets[name]

    def seeds(self, experiment: Experiment) -> list[int]:
        own = experiment.seeds
        return self.config.seeds if own is None else list(range(own)) if isinstance(own, int) else own

    # -- what the rules ask ---------------------------------------------------------------------------------------

    def run(self, wildcards: Any, id: str | None = None) -> Trained:
        """The network that wildcards ``id, network, recipe, seed`` name; ``id`` where it is no wildcard of a rule."""
        key = (id or wildcards.id, wildcards.network, wildcards.recipe, int(wildcards.seed))
        if key not in self.runs:
            raise OODError(f"no experiment of variant '{self.config.variant}' trains {'/'.join(map(str, key))}")
        return self.runs[key]

    @cached_property
    def papers(self) -> list[str]:
        """Papers in the order of their experiments, those that `only` keeps."""
        kept = self.config.only.papers or [e.paper for e in self.config.experiments]
        return list(dict.fromkeys(e.paper for e in self.config.experiments if e.paper in kept and self.runs_of(e)))

    def about(self, paper: str) -> Paper | None:
        """What the configuration says about a paper."""
        return next((p for p in self.config.papers if p.name == paper), None)

    def experiments(self, paper: str) -> list[Experiment]:
        """Experiments of a paper of which `only` keeps something."""
        return [e for e in self.config.experiments if e.paper == paper and self.runs_of(e)]

    def runs_of(self, experiment: Experiment) -> list[Trained]:
        """Networks whose results an experiment reports, those that `only` keeps."""
        found = []
        for network in experiment.networks:
            for name in experiment.recipes:
                recipe = self._one(self.config.recipes, name, "recipes", experiment.id, network)
                path_name, _ = self._named(recipe)
                found += [self.runs[experiment.id, network, path_name, seed] for seed in self.seeds(experiment)]
        return [run for run in found if self.config.only.keeps(run)]

    def sets(self, id: str) -> list[tuple[str, str]]:
        """(dataset, split) of everything a network trained on ``id`` sees: train, test, the OOD sets, ID-like sets."""
        names = dict.fromkeys([*self.ood[id], *self.id_like[id].values()])
        return [(id, "train"), (id, "test"), *((name, "test") for name in names)]

    def compat(self, id: str) -> list[str]:
        """Papers whose own metric rules are computed on an ID set."""
        return sorted({rule for e in self.config.experiments if e.id == id for rule in e.compat})

    @cached_property
    def id_like(self) -> dict[str, dict[str, str]]:
        """By ID set: OOD set -> the images of its list that SC-OOD counts as ID; where a table needs them."""
        return {id: released.id_like(self.datasets, sets) if "scood" in self.compat(id) else {}
                for id, sets in self.ood.items()}

    def relisted_groups(self, id: str, groups: dict[str, list[str]]) -> dict[str, list[str]]:
        """The groups of OOD sets that goe.2g-1 changes, with its lists (``far+2g-1``); none where it is off."""
        other = self.relisted[id] if "goe.2g-1" in self.config.fidelity.released else {}
        return {f"{group}+2g-1": [other.get(name, name) for name in names] for group, names in groups.items()
                if other.keys() & set(names)}

    def feature_groups(self) -> list[tuple[str, str, list[tuple[str, str]]]]:
        """(ID set, group, sets) of every features job: which sets share one process."""
        groups = []
        for id in self.ood:
            sets = self.sets(id)
            if self.config.features.together:
                groups.append((id, "all", sets))
            else:
                groups += [(id, "id", sets[:2]), (id, "ood", sets[2:])]
        return groups

    def outliers(self, run: Trained) -> str | None:
        """The dataset a run trains against; none where its method, corrected or as released, reads no outliers."""
        when = plugins.spec("methods", run.recipe.method).outliers if run.recipe.method else None
        if when == "always" and not run.recipe.outliers:
            raise OODError(f"recipe '{run.recipe.name}': method {run.recipe.method} trains against outliers; "
                           "name them, e.g. outliers: {dataset: pool}")
        reads = run.recipe.outliers and (when == "always" or when in run.released)
        return run.recipe.outliers.dataset if reads else None

    def candidates(self, run: Trained) -> list[Trained]:
        """The networks of which a run takes the best."""
        return [self.runs[run.id, run.network.name, name, run.seed] for name in run.among]

    def held_out(self, run: Trained) -> str:
        """The dataset whose held-out outliers choose among a run's candidates."""
        return self.candidates(run)[0].recipe.outliers.dataset

    def needs(self, run: Trained, score: str) -> frozenset[str]:
        """What the score reads, out of `workflow_scripts.core.specs.ScoreInput`."""
        return plugins.spec("scores", run.scores[score].module).needs

    def background(self, run: Trained) -> bool:
        """Whether the network has an output for the background beside its K classes."""
        if run.recipe.checkpoint is not None:
            return run.recipe.checkpoint.background
        return plugins.spec("methods", run.recipe.method).background

    def joined(self, run: Trained) -> set[str]:
        """Scores that a joined score is made of, so that they are needed for the ID train images too."""
        options = [plugins.parse_options("scores", score.module, score.options, name)
                   for name, score in run.scores.items() if "scores" in self.needs(run, name)]
        return {name for o in options for name in (o.base, o.background)}

    def archives(self, dataset: str, split: str) -> list[str]:
        """Raw files to fetch for a split, by name: none where it is bundled, made, or lies below the data root."""
        row = self.datasets[dataset]
        if not catalogue.missing(row, split, self.data_root):
            return []
        known = [PurePath(pattern).name for pattern in catalogue.files(row, split)]
        return [name for name in known if name in self.sources][:1]

    def packed(self, dataset: str, split: str) -> str | None:
        """The row whose LMDB file a split is read from; none where it has no such form, or the file is there already.

        A run with ``limit.images`` reads its few images from the raw files: the archive is the whole set.
        """
        row = self.datasets[dataset]
        if not catalogue.to_pack(row, split, self.data_root, self.config.limit.images is not None):
            return None
        return catalogue.archive_row(row, self.datasets).name

    def checkpoint_archive(self, recipe: Recipe) -> str | None:
        """Name of the download that a recipe's weights come from; none where the file lies below the data root."""
        given = recipe.checkpoint
        if sources.locate(given.file, self.data_root) or not given.url:
            return None
        name = PurePath(given.file).name
        whole = given.sha256 is not None and len(given.sha256) == 64
        self.sources[name] = Source(
            name=name, about=f"weights of recipe {recipe.name}", urls=[given.url],
            checksum=[f"sha256:{given.sha256}"] if whole else [], checksum_from="the configuration" if whole else "")
        return name

    def missing_data(self, splits: Iterable[tuple[str, str]], recipes: Iterable[Recipe]) -> list[str]:
        """A message for each raw file of these (dataset, split) and checkpoints of recipes that is not in its place."""
        archives = {pair: self.archives(*pair) for pair in splits}
        lines = [line for pair, names in archives.items() if not names
                 for line in catalogue.missing(self.datasets[pair[0]], pair[1], self.data_root)]
        lines += [line for dataset, split in archives
                  for line in catalogue.lacking(self.datasets[dataset], split, self.data_root)]
        wanted = {name for names in archives.values() for name in names
                  if self.config.offline or self.sources[name].by_hand}
        for recipe in {recipe.checkpoint.file: recipe for recipe in recipes}.values():
            file, name = recipe.checkpoint.file, self.checkpoint_archive(recipe)
            if name and self.config.offline:
                wanted.add(name)
            elif not name and not sources.locate(file, self.data_root):
                lines.append(f"recipe '{recipe.name}': checkpoint {file} expected below the data root "
                             f"{self.data_root or '(not set)'}")
        return lines + to_place(self.sources, sorted(wanted), Path(self.config.resources) / "archives").splitlines()

    def used_datasets(self, whole: bool = False) -> list[tuple[str, str]]:
        """(dataset, split) of every store that what `only` keeps (``whole``: the configuration) needs, each once."""
        runs = self.runs if whole else self.wanted
        pools = [(pool, "train") for pool in map(self.outliers, runs.values()) if pool]
        pools += [(self.held_out(run), "val") for run in runs.values() if run.among]
        sizes = [(run.recipe.images, "train") for run in runs.values() if run.recipe.images]
        ids = {run.id for run in runs.values()}
        return list(dict.fromkeys([*(pair for id in self.ood if id in ids for pair in self.sets(id)), *sizes, *pools]))

    @cached_property
    def wanted(self) -> dict[Key, Trained]:
        """The networks that `only` keeps and those they start from, in the order of the configuration."""
        return only.wanted(self)

    def reported(self, paper: str) -> list[Trained]:
        """Networks whose results a paper's table holds, each once."""
        return list({r.key: r for e in self.experiments(paper) for r in self.runs_of(e)}.values())

    @property
    def names(self) -> dict[str, str]:
        """Printed names of the scores and datasets in use that have one."""
        scores = {name: score.label for run in self.runs.values() for name, score in run.scores.items()}
        datasets = {name: self.datasets[name].label for name, _ in self.used_datasets(whole=True)}
        return {name: label for name, label in (scores | datasets).items() if label}
