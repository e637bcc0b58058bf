"""Evaluate: score files of one trained network -> one CSV with every metric of every score and set.

    python -m workflow_scripts.stages.compute_metrics --scores scores/energy.h5 scores/msp.h5 \
        --id-features features/cifar10.test.h5 --out metrics/seed1.csv --config \
        '{"id": "cifar10.test", "groups": {"near": ["cifar100.test"], "far": ["svhn.test"]}, "compat": ["himplos"]}'

Rows ``score,dataset,group,metric,value,n_id,n_ood``. OOD rows carry their group and the sizes of both sides (AUPR
depends on them); rows of the ID task carry the group ``id``, the ID set and ``n_ood`` 0. A paper named in ``compat``
adds rows by its own counting rules, e.g. ``fpr95@himplos``. Values are fractions, written with all their digits;
``nan`` is a metric that is undefined, such as AUPR-error where no image is misclassified.

OOD metrics: auroc; fpr95 (ID positive) and fpr95_ood (OOD positive); aupr_in and aupr_out (average precision);
detection_error (balanced). ID metrics: accuracy, ece, aurc, eaurc, augrc, aupr_error, fpr95_error.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from workflow_scripts.core.errors import OODError, stage, unknown
from workflow_scripts.core.section import stage_parser
from workflow_scripts.metrics.compat import ID_RULES, OOD_RULES, by_rule, ood_images
from workflow_scripts.metrics.confidence import id_metrics
from workflow_scripts.metrics.ood import checked, ood_metrics
from workflow_scripts.metrics.rows import BLOCK, Row, dataset_of, opened, read_id_task, write
from workflow_scripts.stages.sections.compute_metrics import ComputeMetrics


def nearest_mean(id_features: Path, statistics: Path) -> float:
    """Share of the ID test images whose class has the mean of train features nearest to theirs by angle.

    Raises:
        OODError: naming the file that is missing, lacks what is read, or is of another network.
    """
    with opened(statistics, "the precompute stage") as file:
        means = dataset_of(file, statistics, "class_means")[()]
    with opened(id_features, "the features stage") as file:
        features, labels = dataset_of(file, id_features, "features"), dataset_of(file, id_features, "labels")[()]
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


def rows_of(path: Path, section: ComputeMetrics, correct: NDArray[np.bool_], probability: NDArray[np.float64],
            more: dict[str, float] | None = None) -> Iterator[Row]:
    """Every row of one score file; the score's name is the file's, as in ``{score}.h5``. ``more``: further ID metrics.

    Raises:
        OODError: naming the file and set: missing, empty, NaN or infinite scores, or ID scores not one per label.
    """
    score = path.stem
    with opened(path, "the score stage") as file:
        sets = {name: checked(dataset_of(file, path, name)[()], f"{path}, set '{name}'")
                for name in (section.id, *(name for group in section.groups.values() for name in group),
                             *section.id_like.values(), *section.listed.values(), *section.shifted)}
    id_scores = sets[section.id]
    if id_scores.size != correct.size:
        raise OODError(f"{path}, set '{section.id}': expected {correct.size} scores, one per label of the ID test set; "
                       f"found {id_scores.size}; scores and features are of different runs, delete both and run again")
    task = id_metrics(id_scores, correct, probability) | (more or {})
    for paper in section.compat:
        if paper in ID_RULES:
            task |= {f"{metric}@{paper}": value for metric, value in ID_RULES[paper](id_scores, correct).items()}
    for metric, value in task.items():
        yield Row(score, dataset(section.id), "id", metric, value, id_scores.size, 0)
    for group, names in section.groups.items():
        for name in names:
            ood_scores = sets[name]
            for metric, value in ood_metrics(id_scores, ood_scores).items():
                yield Row(score, dataset(name), group, metric, value, id_scores.size, ood_scores.size)
            for paper in section.compat:
                accepted, rejected = id_scores, ood_scores
                if paper == "scood" and name in section.id_like:
                    accepted = np.concatenate([id_scores, sets[section.id_like[name]]])
                    rejected = sets[section.listed.get(name, name)]
                if paper == "openood-fs":
                    accepted = np.concatenate([id_scores, *(sets[one] for one in section.shifted)])
                try:
                    values = by_rule(paper, accepted, rejected, section.confidence.get(score, ""))
                except OODError as error:
                    raise OODError(f"{path}, set '{name}': {error}") from None
                count = ood_images(paper, accepted.size, rejected.size)
                for metric, value in values.items():
                    yield Row(score, dataset(name), group, f"{metric}@{paper}", value, accepted.size, count)


def evaluate(scores: list[Path], id_features: Path, section: ComputeMetrics,
             statistics: Path | None = None) -> list[Row]:
    """Rows of all score files, in the order given; with ``statistics`` also ``accuracy_prototype``.

    Raises:
        OODError: a paper without rules, two files with the same score name, or as :func:`read_id_task`,
            :func:`rows_of`.
    """
    for paper in section.compat:
        if paper not in OOD_RULES:
            raise unknown("--config.compat", paper, OOD_RULES)
    files: dict[str, Path] = {}
    for path in scores:
        if path.stem in files:
            raise OODError(f"--scores: {files[path.stem]} and {path} share the name '{path.stem}'; give each once")
        files[path.stem] = path
    correct, probability = read_id_task(id_features)
    more = {"accuracy_prototype": nearest_mean(id_features, statistics)} if statistics else {}
    return [row for path in scores for row in rows_of(path, section, correct, probability, more)]


def parser() -> argparse.ArgumentParser:
    rules = f"Counting rules of papers (compat): {', '.join(OOD_RULES)}."
    args = stage_parser(__spec__, f"{__doc__}\n{rules}", ComputeMetrics)
    args.add_argument("--scores", nargs="+", required=True, type=Path, metavar="SCORE.h5",
                      help="score files, one per score; each holds float64 (N,) per set, named {dataset}.{split}; "
                           "the file's name is the score's")
    args.add_argument("--id-features", required=True, type=Path, metavar="SET.h5",
                      help="features file of the ID test set; its labels and logits are read")
    args.add_argument("--statistics", type=Path, metavar="STATS.h5",
                      help="class means of the ID train features; adds accuracy_prototype, by the nearest of them")
    args.add_argument("--out", required=True, type=Path, metavar="METRICS.csv", help="the CSV to write")
    return args


@stage
def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)
    rows = evaluate(args.scores, args.id_features, args.config, args.statistics)
    write(rows, args.out)
    print(f"{args.out}: {len(rows)} values of {len(args.scores)} scores")


if __name__ == "__main__":
    main()
