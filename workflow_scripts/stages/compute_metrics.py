"""Evaluate: score files of one trained network -> one CSV with every metric of every score and set.

    python -m workflow_scripts.stages.compute_metrics --scores scores/energy.h5 scores/msp.h5 \
        --id-features features/cifar10.test.h5 --out metrics/seed1.csv --config \
        '{"id": "cifar10.test", "groups": {"near": ["cifar100.test"], "far": ["svhn.test"]}, "compat": ["himplos"]}'

Rows ``score,dataset,group,metric,value,n_id,n_ood``. OOD rows carry their group and the sizes of both sides (AUPR
depends on them); rows of the ID task carry the group ``id``, the ID set and ``n_ood`` 0. A paper named in ``compat``
adds rows by its own counting rules, e.g. ``fpr95@himplos``. Values are fractions, written with all their digits;
``nan`` is a metric that is undefined, such as AUPR-error where no image is misclassified.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from workflow_scripts.core.errors import OODError, nearest, stage, unknown
from workflow_scripts.core.files import atomic
from workflow_scripts.metrics.compat import ID_RULES, OOD_RULES, ood_images
from workflow_scripts.metrics.confidence import id_metrics, predict
from workflow_scripts.metrics.ood import checked, ood_metrics

BLOCK = 8192  # rows of logits in memory at once


class Row(NamedTuple):
    """One line of the CSV; the field names are its header."""

    score: str
    dataset: str
    group: str
    metric: str
    value: float
    n_id: int
    n_ood: int


@dataclass(frozen=True)
class Config:
    """What to compare: names of sets inside the score files."""

    id: str
    """The ID test set."""
    groups: dict[str, list[str]]
    """OOD sets by group."""
    compat: list[str] = field(default_factory=list)
    """Papers whose own counting rules are computed as well."""
    id_like: dict[str, str] = field(default_factory=dict)
    """OOD set -> the set of images beside it that `scood` counts as ID."""

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not self.id:
            raise OODError(f"--config id: expected the name of the ID set, found {self.id!r}")
        if not isinstance(self.groups, dict) or not all(_names(sets) for sets in self.groups.values()):
            raise OODError(f"--config groups: expected lists of set names by group, found {self.groups!r}")
        if not _names(self.compat):
            raise OODError(f"--config compat: expected a list of names, found {self.compat!r}")
        for paper in self.compat:
            if paper not in OOD_RULES:
                raise unknown("--config compat", paper, OOD_RULES)
        for name, like in self.id_like.items():
            if not any(name in names for names in self.groups.values()) or not isinstance(like, str):
                raise OODError(f"--config id_like: expected OOD sets of groups and a set for each, found '{name}': "
                               f"{like!r}")
        if "id" in self.groups:
            raise OODError("--config groups: 'id' names the rows of the ID task; give this group another name")
        sets = [self.id, *(name for group in self.groups.values() for name in group)]
        twice = sorted({name for name in sets if sets.count(name) > 1})
        if twice:
            raise OODError(f"--config: '{twice[0]}' is named more than once; a set is either ID or in one group")


def _names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def parse(text: str) -> Config:
    """The configuration from its JSON text.

    Raises:
        OODError: not a JSON object, a missing or unknown key, or a wrong value; the key is named.
    """
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise OODError(f"--config: expected JSON text, found {text[:60]!r} ({error})") from None
    if not isinstance(found, dict):
        raise OODError(f"--config: expected a JSON object, found {text[:60]!r}")
    for key in found:
        if key not in Config.__dataclass_fields__:
            raise unknown("--config", key, Config.__dataclass_fields__)
    for key in ("id", "groups"):
        if key not in found:
            raise OODError(f"--config: '{key}' is missing; expected id, groups and, if wanted, compat, id_like")
    return Config(**found)


def _open(path: Path, written_by: str) -> h5py.File:
    if not path.is_file():
        raise OODError(f"{path}: no such file; run {written_by} first")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise OODError(f"{path}: expected an HDF5 file, cannot read it ({error}); delete it and run {written_by} "
                       "again") from None


def _dataset(file: h5py.File, path: Path, name: str) -> h5py.Dataset:
    if not isinstance(file.get(name), h5py.Dataset):
        raise OODError(f"{path}: has no dataset '{name}'{nearest(name, file)}; it holds {', '.join(file) or 'nothing'}")
    return file[name]


def read_id_task(path: Path) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Correctness (N,) and softmax probability of the predicted class (N,) from the ID test set's features file.

    Raises:
        OODError: naming the file: missing or unreadable, without labels or logits, empty, labels outside 0..K-1, logits
            that are not finite.
    """
    with _open(path, "the features stage") as file:
        labels = _dataset(file, path, "labels")[()]
        logits = _dataset(file, path, "logits")
        if labels.ndim != 1 or logits.ndim != 2 or labels.size != logits.shape[0]:
            raise OODError(f"{path}: expected labels (N,) and logits (N, K); found {labels.shape} and {logits.shape}")
        if labels.size == 0:
            raise OODError(f"{path}: expected at least one ID test image, found an empty set")
        if labels.min() < 0 or labels.max() >= logits.shape[1]:
            raise OODError(f"{path}: expected labels 0 to {logits.shape[1] - 1}, found {labels.min()} to "
                           f"{labels.max()}; is this the ID test set?")
        try:
            blocks = [predict(logits[start:start + BLOCK]) for start in range(0, labels.size, BLOCK)]
        except OODError as error:
            raise OODError(f"{path}: {error}") from None
    predicted, probability = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    return predicted == labels, probability


def nearest_mean(id_features: Path, statistics: Path) -> float:
    """Share of the ID test images whose class has the mean of train features nearest to theirs by angle.

    Raises:
        OODError: naming the file that is missing, lacks what is read, or is of another network.
    """
    with _open(statistics, "the precompute stage") as file:
        means = _dataset(file, statistics, "class_means")[()]
    with _open(id_features, "the features stage") as file:
        features, labels = _dataset(file, id_features, "features"), _dataset(file, id_features, "labels")[()]
        if features.shape[1] != means.shape[1]:
            raise OODError(f"{statistics}: class means of {means.shape[1]} features, {id_features} has "
                           f"{features.shape[1]}; they belong to different networks")
        units = means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
        found = [(features[start:start + BLOCK].astype(np.float64) @ units.T).argmax(1)
                 for start in range(0, labels.size, BLOCK)]
    return float((np.concatenate(found) == labels).mean())


def dataset(name: str) -> str:
    """The dataset of a set: ``svhn.test`` -> ``svhn``."""
    return name.rsplit(".", 1)[0]


def rows_of(path: Path, config: Config, correct: NDArray[np.bool_], probability: NDArray[np.float64],
            more: dict[str, float] | None = None) -> Iterator[Row]:
    """Every row of one score file; the score's name is the file's, as in ``{score}.h5``. ``more``: further ID metrics.

    Raises:
        OODError: naming the file and set: missing, empty, NaN or infinite scores, or ID scores not one per label.
    """
    score = path.stem
    with _open(path, "the score stage") as file:
        sets = {name: checked(_dataset(file, path, name)[()], f"{path}, set '{name}'")
                for name in (config.id, *(name for group in config.groups.values() for name in group),
                             *config.id_like.values())}
    known = sets[config.id]
    if known.size != correct.size:
        raise OODError(f"{path}, set '{config.id}': expected {correct.size} scores, one per label of the ID test set; "
                       f"found {known.size}; scores and features are of different runs, delete both and run again")
    task = id_metrics(known, correct, probability) | (more or {})
    for paper in config.compat:
        if paper in ID_RULES:
            task |= {f"{metric}@{paper}": value for metric, value in ID_RULES[paper](known, correct).items()}
    for metric, value in task.items():
        yield Row(score, dataset(config.id), "id", metric, value, known.size, 0)
    for group, names in config.groups.items():
        for name in names:
            novel = sets[name]
            for metric, value in ood_metrics(known, novel).items():
                yield Row(score, dataset(name), group, metric, value, known.size, novel.size)
            for paper in config.compat:
                like = [sets[config.id_like[name]]] if paper == "scood" and name in config.id_like else []
                accepted = np.concatenate([known, *like])
                try:
                    values = OOD_RULES[paper](accepted, novel)
                except OODError as error:
                    raise OODError(f"{path}, set '{name}': {error}") from None
                count = ood_images(paper, known.size, novel.size)
                for metric, value in values.items():
                    yield Row(score, dataset(name), group, f"{metric}@{paper}", value, accepted.size, count)


def evaluate(scores: list[Path], id_features: Path, config: Config, statistics: Path | None = None) -> list[Row]:
    """Rows of all score files, in the order given; with ``statistics`` also ``accuracy_prototype``.

    Raises:
        OODError: two files with the same score name, or see :func:`read_id_task` and :func:`rows_of`.
    """
    files: dict[str, Path] = {}
    for path in scores:
        if path.stem in files:
            raise OODError(f"--scores: {files[path.stem]} and {path} share the name '{path.stem}'; give each once")
        files[path.stem] = path
    correct, probability = read_id_task(id_features)
    more = {"accuracy_prototype": nearest_mean(id_features, statistics)} if statistics else {}
    return [row for path in scores for row in rows_of(path, config, correct, probability, more)]


def write(rows: list[Row], out: Path) -> None:
    """The rows as CSV, atomically; the csv module writes floats with all their digits."""
    with atomic(out) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Row._fields)
        writer.writerows(rows)


def parser() -> argparse.ArgumentParser:
    args = argparse.ArgumentParser(
        prog="python -m workflow_scripts.stages.compute_metrics",
        description="Compute the OOD and ID metrics of one trained network from its score files, as one long CSV "
                    "(score,dataset,group,metric,value,n_id,n_ood; fractions, not percent).",
        epilog="OOD metrics: auroc; fpr95 (ID positive) and fpr95_ood (OOD positive); aupr_in and aupr_out (average "
               "precision); detection_error (balanced). ID metrics: accuracy, ece, aurc, eaurc, aupr_error, "
               "fpr95_error.")
    args.add_argument("--scores", nargs="+", required=True, type=Path, metavar="SCORE.h5",
                      help="score files, one per score; each holds float64 (N,) per set, named {dataset}.{split}; "
                           "the file's name is the score's")
    args.add_argument("--id-features", required=True, type=Path, metavar="SET.h5",
                      help="features file of the ID test set; its labels and logits are read")
    args.add_argument("--statistics", type=Path, metavar="STATS.h5",
                      help="class means of the ID train features; adds accuracy_prototype, by the nearest of them")
    args.add_argument("--config", required=True, metavar="JSON",
                      help='JSON text: {"id": SET, "groups": {GROUP: [SET, ...]}, "compat": [PAPER, ...]}; compat '
                           f"(may be left out) adds the papers' own counting rules: {', '.join(OOD_RULES)}; "
                           "id_like {SET: SET} names what scood joins to the ID side for an OOD set")
    args.add_argument("--out", required=True, type=Path, metavar="METRICS.csv", help="the CSV to write")
    return args


@stage
def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)
    rows = evaluate(args.scores, args.id_features, parse(args.config), args.statistics)
    write(rows, args.out)
    print(f"{args.out}: {len(rows)} values of {len(args.scores)} scores")


if __name__ == "__main__":
    main()
