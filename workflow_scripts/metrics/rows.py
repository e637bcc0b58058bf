"""Metrics as rows of a CSV, and what of score and features files they are computed from."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from workflow_scripts.core.errors import OODError, nearest
from workflow_scripts.core.files import atomic, not_to_blame
from workflow_scripts.metrics.confidence import predict

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


def opened(path: Path, written_by: str) -> h5py.File:
    """A result file. Raises OODError when it is missing or no HDF5 file; ``written_by`` names the stage to run."""
    if not path.is_file():
        raise OODError(f"{path}: no such file; run {written_by} first")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        not_to_blame(path, error)
        raise OODError(f"{path}: expected an HDF5 file, cannot read it ({error}); delete it and run {written_by} "
                       "again") from None


def dataset_of(file: h5py.File, path: Path, name: str) -> h5py.Dataset:
    """A dataset of it. Raises OODError when it has none of that name."""
    if not isinstance(file.get(name), h5py.Dataset):
        raise OODError(f"{path}: has no dataset '{name}'{nearest(name, file)}; it holds {', '.join(file) or 'nothing'}")
    return file[name]


def read_id_task(path: Path) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Correctness (N,) and softmax probability of the predicted class (N,) from the ID test set's features file.

    Raises:
        OODError: naming the file: missing or unreadable, without labels or logits, empty, labels outside 0..K-1, logits
            that are not finite.
    """
    with opened(path, "the features stage") as file:
        labels = dataset_of(file, path, "labels")[()]
        logits = dataset_of(file, path, "logits")
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


def write(rows: Iterable[Row], out: Path) -> None:
    """The rows as CSV, atomically; the csv module writes floats with all their digits."""
    with atomic(out) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Row._fields)
        writer.writerows(rows)
