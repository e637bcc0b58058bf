"""The work of a configuration as data: every network to make, every set to score, and small questions about them.

:func:`workflow_scripts.work.expand.read_plan` builds a :class:`Plan`, complete and unchanging; whoever needs to know
what is to be done asks it, or takes the part of it that is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from workflow_scripts.config import catalogue, image_lists
from workflow_scripts.config.catalogue import Dataset
from workflow_scripts.config.fidelity import suffix
from workflow_scripts.config.models import Config, Experiment, Imported, Network, Paper, Recipe, Score, Tuning
from workflow_scripts.config.raw import Source
from workflow_scripts.core import sources
from workflow_scripts.core.errors import OODError
from workflow_scripts.core.fingerprint import Fingerprints
from workflow_scripts.reporting.inputs import Way
from workflow_scripts.work import declared


class Key(NamedTuple):
    """What tells one network from all others."""

    id: str
    """ID set."""
    network: str
    recipe: str
    """Its path name: the recipe's name with the defects that it reproduces (`npos+B1`)."""
    seed: int


@dataclass(frozen=True, eq=False)
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
    scores: Mapping[str, Score]
    """Scores of all experiments that name it, by name, in their order."""
    outliers: str | None = None
    """Dataset that it trains against; none where its method, corrected or as released, reads no outliers."""
    classifier: str | None = None
    """Path name of the recipe whose network makes its pseudo-masks."""
    among: tuple[str, ...] = ()
    """Path names of the recipes of which it takes the best."""
    weights: str | None = None
    """Path name of the recipe that learned the weights of its outliers."""
    tuned: Mapping[str, Tuned] = field(default_factory=dict)
    """Of the scores, those whose options are chosen by an experiment's `tuning`."""

    @cached_property
    def key(self) -> Key:
        return Key(self.id, self.network.name, self.path_name, self.seed)

    @property
    def starts(self) -> tuple[str, ...]:
        """Path names of the recipes whose networks come before it."""
        return tuple(name for name in (self.parent, self.classifier, self.weights, *self.among) if name)


class Tuned(NamedTuple):
    """How the options of a score are chosen."""

    base: str
    """The score as it is configured."""
    way: Way


@dataclass(frozen=True)
class LeftOut:
    """A network that an experiment asks for and that is not part of the work, since optional weights are not there."""

    paper: str
    key: Key
    """Its recipe without defects."""
    label: str
    """Of its recipe."""
    weights: Recipe
    """The recipe whose file is not there: its own, or one that it starts from."""

    def __str__(self) -> str:
        given = self.weights.checkpoint
        assert given is not None  # it is one that reads a file
        get = f"; the target optional_weights downloads it from {given.url}" if given.url else ""
        return (f"recipe '{self.key.recipe}' of {self.key.network} on {self.key.id}: {given.file} is not below the "
                f"data root{get}")


@dataclass(frozen=True, eq=False)
class Taken:
    """Score files of another tool: an entry of `imported` with the file of each of its sets."""

    entry: Imported
    files: Mapping[str, Path]
    groups: Mapping[str, tuple[str, ...]]
    """Its OOD sets by group, as in the experiments on its ID set."""

    @cached_property
    def key(self) -> Key:
        return Key(self.entry.id, self.entry.network, self.entry.name, self.entry.seed)

    @property
    def label(self) -> str:
        return f"{self.entry.label} [imported]"


class Parts(NamedTuple):
    """An OOD test set as SC-OOD's reference protocol divides it."""

    ood: str
    """The set of its images that count as OOD."""
    like: str
    """The set of those that count as ID."""


@dataclass(frozen=True, eq=False)
class Plan:
    """All work of a configuration."""

    config: Config
    datasets: Mapping[str, Dataset]
    """Rows of the table of datasets by name."""
    data_root: Path | None
    """Folder of the raw data, where there is one."""
    sources: Mapping[str, Source]
    """Raw files that can be downloaded, by name: rows of the table, and weights that the recipes name."""
    runs: Mapping[Key, Trained]
    """Every network to make."""
    ood: Mapping[str, Mapping[str, str]]
    """OOD sets of each ID set and their groups, over all experiments: each network of that ID set sees them all."""
    tuning: Mapping[str, Tuning]
    """How options of scores are chosen, by ID set."""
    parts: Mapping[str, Mapping[str, Parts]]
    """By ID set: OOD set -> its parts by SC-OOD's lists, where some of it counts as ID; where a table needs them."""
    otherwise: Mapping[str, Mapping[tuple[str, ...], Mapping[str, str]]]
    """By ID set: defects of the evaluation, alone and together -> OOD set -> the set that the release has in its place
    (:func:`workflow_scripts.work.released.otherwise`); of the defects that are asked for."""
    shifted: Mapping[str, tuple[str, ...]]
    """By ID set: sets of covariate-shifted ID images."""
    imported: Mapping[Key, Taken]
    """Score files of other tools, which stand in a paper's table."""
    results: tuple[tuple[Experiment, tuple[Trained, ...]], ...]
    """Each experiment with the networks whose results it reports, those that `only` keeps."""
    left_out: tuple[LeftOut, ...] = ()
    """What lacks optional weights, of what `only` keeps, one entry for all seeds."""
    fingerprints: Fingerprints = field(default_factory=Fingerprints)
    """Of the raw files, each taken when it is first asked for."""

    # -- networks -------------------------------------------------------------------------------------------------

    def run(self, wildcards: Any, id: str | None = None) -> Trained:
        """The network that wildcards ``id, network, recipe, seed`` name; ``id`` where it is no wildcard of a rule."""
        key = Key(id or wildcards.id, wildcards.network, wildcards.recipe, int(wildcards.seed))
        if key not in self.runs:
            raise OODError(f"no experiment of variant '{self.config.variant}' trains {'/'.join(map(str, key))}")
        return self.runs[key]

    def sibling(self, run: Trained, recipe: str) -> Trained:
        """The network of another recipe (its path name) for the same ID set, architecture and seed."""
        return self.runs[run.key._replace(recipe=recipe)]

    def candidates(self, run: Trained) -> list[Trained]:
        """The networks of which a run takes the best."""
        return [self.sibling(run, name) for name in run.among]

    def held_out(self, run: Trained) -> str:
        """The dataset whose held-out outliers choose among a run's candidates."""
        outliers = self.candidates(run)[0].recipe.outliers
        assert outliers is not None  # checks.candidates
        return outliers.dataset

    @cached_property
    def wanted(self) -> Mapping[Key, Trained]:
        """The networks that `only` keeps and those they start from, in the order of the configuration."""
        todo = [run for paper in self.papers for run in self.reported(paper)]
        kept: set[Key] = set()
        while todo:
            run = todo.pop()
            if run.key not in kept:
                kept.add(run.key)
                todo += [self.sibling(run, name) for name in run.starts]
        return {key: run for key, run in self.runs.items() if key in kept}

    # -- scores ---------------------------------------------------------------------------------------------------

    def needs(self, run: Trained, score: str) -> frozenset[str]:
        """What the score reads, out of `workflow_scripts.core.specs.ScoreInput`."""
        return declared.needs(run.scores[score])

    def joined(self, run: Trained) -> set[str]:
        """Scores that a joined score is made of, so that they are needed for the ID train images too."""
        return {name for score in run.scores.values() for name in declared.joins(score).values()}

    # -- papers ---------------------------------------------------------------------------------------------------

    @cached_property
    def papers(self) -> list[str]:
        """Papers in the order of their experiments, those that `only` keeps."""
        kept = self.config.only.papers
        return list(dict.fromkeys(e.paper for e, runs in self.results if runs and (not kept or e.paper in kept)))

    def about(self, paper: str) -> Paper | None:
        """What the configuration says about a paper."""
        return next((p for p in self.config.papers if p.name == paper), None)

    def experiments(self, paper: str) -> list[Experiment]:
        """Experiments of a paper of which `only` keeps something."""
        return [experiment for experiment, runs in self.results if experiment.paper == paper and runs]

    def runs_of(self, experiment: Experiment) -> tuple[Trained, ...]:
        """Networks whose results an experiment of the configuration reports, those that `only` keeps."""
        return next(runs for one, runs in self.results if one is experiment)

    def reported(self, paper: str) -> list[Trained]:
        """Networks whose results a paper's table holds, each once."""
        return list(dict.fromkeys(run for e, runs in self.results if e.paper == paper for run in runs))

    @cached_property
    def names(self) -> dict[str, str]:
        """Printed names of the scores and datasets in use that have one."""
        scores = {name: score.label for run in self.runs.values() for name, score in run.scores.items()}
        datasets = {name: self.datasets[name].label for name, _ in self.used_datasets(whole=True)}
        return {name: label for name, label in (scores | datasets).items() if label}

    # -- sets -----------------------------------------------------------------------------------------------------

    def sets(self, id: str) -> list[tuple[str, str]]:
        """(dataset, split) of everything a network trained on ``id`` sees: train, test, the OOD sets, parts of them,
        shifted ID sets."""
        names = dict.fromkeys([*self.ood[id], *(name for parts in self.parts[id].values() for name in parts),
                               *self.shifted[id]])
        return [(id, "train"), (id, "test"), *((name, "test") for name in names)]

    def validation_sets(self, id: str) -> list[tuple[str, str]]:
        """(dataset, split) of the images that options of scores are chosen with: the ID set's first."""
        tuning = self.tuning.get(id)
        return [(name, "test") for name in (tuning.id, *tuning.ood) if name] if tuning else []

    def compat(self, id: str) -> list[str]:
        """Papers whose own metric rules are computed on an ID set."""
        return compat(self.config.experiments, id)

    def groups_otherwise(self, id: str, groups: Mapping[str, list[str]]) -> dict[str, list[str]]:
        """The groups of OOD sets that defects of the evaluation change, as the release has them (``far+2g-1``)."""
        return {group + suffix(defects): [other.get(name, name) for name in names]
                for defects, other in self.otherwise[id].items()
                for group, names in groups.items() if other.keys() & set(names)}

    def used_datasets(self, whole: bool = False) -> list[tuple[str, str]]:
        """(dataset, split) of every store that what `only` keeps (``whole``: the configuration) needs, each once."""
        runs = (self.runs if whole else self.wanted).values()
        ids = {run.id for run in runs}
        tests = [pair for id in self.ood if id in ids for pair in self.sets(id)]
        sizes = [(run.recipe.images, "train") for run in runs if run.recipe.images]
        pools = [(run.outliers, "train") for run in runs if run.outliers]
        pools += [(self.held_out(run), "val") for run in runs if run.among]
        chosen = [pair for id in self.tuning if id in ids for pair in self.validation_sets(id)]
        return list(dict.fromkeys([*tests, *sizes, *pools, *chosen]))

    # -- raw files ------------------------------------------------------------------------------------------------

    def archives(self, dataset: str, split: str) -> list[str]:
        """Raw files to fetch for a split, by name: none where it is bundled, made, or lies below the data root."""
        row = self.datasets[dataset]
        if not catalogue.missing(row, split, self.data_root):
            return []
        names = [PurePath(pattern).name for pattern in catalogue.files(row, split)]
        return [name for name in names if name in self.sources][:1]

    def image_list(self, dataset: str, split: str) -> str | Path | None:
        """The list that chooses the images of a split: the name of the raw file to fetch, or its path below the data
        root; none where no list does."""
        listed = self.datasets[dataset].list_of(split)
        if listed is None:
            return None
        return image_lists.read().there(listed.list, self.data_root) or image_lists.file_name(listed.list)

    def packed(self, dataset: str, split: str) -> str | None:
        """The row whose LMDB file a split is read from; none where it has no such form, or the file is there already.

        A run with ``limit.images`` reads its few images from the raw files: the archive is the whole set.
        """
        row = self.datasets[dataset]
        if not catalogue.to_pack(row, split, self.data_root, self.config.limit.images is not None):
            return None
        return catalogue.archive_row(row, self.datasets).name

    @cached_property
    def optional_archives(self) -> list[str]:
        """Names of the downloads of optional weights that the recipes in use name, but those below the data root."""
        asked = [run.recipe for run in self.runs.values()] + [one.weights for one in self.left_out]
        named = [self.checkpoint_archive(r) for r in asked if r.checkpoint and r.checkpoint.optional]
        return list(dict.fromkeys(name for name in named if name))

    def checkpoint_archive(self, recipe: Recipe) -> str | None:
        """Name of the download that a recipe's weights come from; none where the file lies below the data root."""
        return download(recipe, self.data_root)


def compat(experiments: Iterable[Experiment], id: str) -> list[str]:
    """Papers whose own metric rules experiments ask for on an ID set."""
    return sorted({rule for experiment in experiments if experiment.id == id for rule in experiment.compat})


def lacking(recipe: Recipe, data_root: Path | None, resources: str) -> bool:
    """Whether a recipe's weights are optional and neither below the data root nor downloaded before."""
    given = recipe.checkpoint
    if given is None or not given.optional or sources.locate(given.file, data_root):
        return False
    name = download(recipe, data_root)
    return name is None or not (Path(resources) / "archives" / name).exists()


def download(recipe: Recipe, data_root: Path | None) -> str | None:
    """Name of the download that a recipe's weights come from; none where the file lies below the data root."""
    given = recipe.checkpoint
    if given is None or not given.url or sources.locate(given.file, data_root):
        return None
    return PurePath(given.file).name
