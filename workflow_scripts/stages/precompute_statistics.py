"""Statistics of the ID train features that scores need: class means, counts and overall mean, in float64.

train features (HDF5) -> statistics (HDF5), in one streamed pass:

    python -m workflow_scripts.stages.precompute_statistics --train FEATURES/digits.train.h5 --out stats.h5
"""

from __future__ import annotations

import argparse
from pathlib import Path

import h5py
import numpy as np

from workflow_scripts.core.errors import OODError, stage
from workflow_scripts.core.files import atomic
from workflow_scripts.scores import cached


def class_sums(features: np.ndarray, labels: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of the rows of each class. (N, D), (N,) in 0..classes-1 -> (K, D) float64, (K,) int64."""
    sums = np.zeros((classes, features.shape[1]))
    order = np.argsort(labels, kind="stable")
    present, starts = np.unique(labels[order], return_index=True)
    sums[present] = np.add.reduceat(features[order].astype(np.float64), starts, axis=0)
    return sums, np.bincount(labels, minlength=classes)


def statistics(train: cached.Features, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Class means (K, D) float64, counts (K,) int64 and overall mean (D,) float64 of a train set.

    All images count, by ground-truth label, whether classified correctly or not.

    Raises:
        OODError: an empty class, a label outside 0..classes-1, or a feature that is not finite.
    """
    sums, counts = np.zeros(()), np.zeros(classes, np.int64)
    given = train.labels
    for rows in train.chunks():
        labels = given[rows]
        wrong = labels[(labels < 0) | (labels >= classes)]
        if wrong.size:
            raise OODError(f"{train.path}: labels of ID train images must be in 0..{classes - 1}, found {wrong[0]}; "
                           "check the number of classes, or extract the features again")
        part, number = class_sums(train.read("features", rows), labels, classes)
        sums, counts = sums + part, counts + number
    if not counts.all():
        empty = np.flatnonzero(counts == 0)
        raise OODError(f"{train.path}: class {empty[0]} has no train image ({empty.size} of {classes} classes are "
                       "empty); every class needs at least one")
    return sums / counts[:, None], counts, sums.sum(axis=0) / counts.sum()


@stage
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True, help="features of the ID train set")
    parser.add_argument("--classes", type=int, help="number of ID classes; left out: the number of logits")
    parser.add_argument("--out", type=Path, required=True, help="the statistics to write")
    given = parser.parse_args(arguments)
    with cached.Features(given.train) as train:
        means, counts, mean = statistics(train, given.classes or cached.dataset(train.file, "logits", 2).shape[1])
    with atomic(given.out) as partial, h5py.File(partial, "w") as out:
        out["class_means"], out["counts"], out["mean"] = means, counts, mean


if __name__ == "__main__":
    main()
