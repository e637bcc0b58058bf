"""A score of cached features as it is run: what it needs is read, the score fitted, sets scored block by block."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from workflow_scripts.core.errors import OODError
from workflow_scripts.scores import base, cached

READ = ("features", "logits", "background")  # of the images to score
FILES = {"train": {"train_features", "train_logits", "train_labels", "train_background", "shuffled"},
         "head": {"head", "batchnorm"}, "statistics": {"statistics"}}
"""Argument of a stage -> what a score reads of its file."""
_HELP = {"train": "features of the ID train set", "head": "the last linear layer",
         "statistics": "class means of the ID train set"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of :data:`FILES`."""
    for name in FILES:
        parser.add_argument(f"--{name}", type=Path, help=_HELP[name])


def given_files(args: argparse.Namespace) -> dict[str, Path | None]:
    """The files that they name."""
    return {name: getattr(args, name) for name in FILES}


def read_known(kinds: frozenset[str], given: Mapping[str, Path | None], device: str, move: Callable[[np.ndarray], Any],
               files_open: ExitStack, without: np.ndarray | None = None) -> base.Known:
    """What the score needs of what is known before a test image is seen; nothing else is read.

    On the CPU a large bank stays in the file of the train features, which is closed with ``files_open``.

    Args:
        given: the files, by the arguments of :data:`FILES`.
        without: numbers of ID train images that are left out of the bank; ``None``: none.

    Raises:
        OODError: a file that the score needs is not given.
    """
    for argument, provided in FILES.items():
        if given.get(argument) is None and kinds & provided:
            raise OODError(f"--{argument}: this score needs {', '.join(sorted(kinds & provided))}; give the file")
    members: dict[str, Any] = {}
    if kinds & FILES["train"]:
        train = files_open.enter_context(cached.Features(given["train"]))
        for key in ("features", "logits", "background"):
            if f"train_{key}" in kinds:
                small = device != "cpu" or key == "background"
                members[f"train_{key}"] = (move(train.whole(key, without)) if small else train.bank(key, without))
        if "train_labels" in kinds:
            members["train_labels"] = move(cached.kept(train.labels, without))
        if "shuffled" in kinds:
            jigsaws = train.shuffled
            members["shuffled"] = base.Batch(logits=move(jigsaws.logits), background=move(jigsaws.background))
    layer, norm = cached.head(given["head"]) if kinds & FILES["head"] else (None, None)
    statistics = cached.statistics(given["statistics"]) if "statistics" in kinds else None
    for kind, value in {"head": layer, "batchnorm": norm, "statistics": statistics}.items():
        if kind in kinds and value is not None:
            members[kind] = base.moved(value, move)
    return base.Known(**members)


def agree(features: cached.Features, evidence: base.Known) -> None:
    """Refuse a set whose features or logits have another size than what is known. Raises OODError naming the file."""
    head, statistics = evidence.head, evidence.statistics
    sources = {"features": (head and head.weight, statistics and statistics.class_means, evidence.train_features),
               "logits": (evidence.train_logits,)}
    for key, parts in sources.items():
        for part in parts:
            if part is not None and key in features.file and features.file[key].shape[-1] != part.shape[1]:
                raise OODError(f"{features.path}: '{key}' has {features.file[key].shape[-1]} columns, expected "
                               f"{part.shape[1]} as in the head, the statistics or the train set; they belong to "
                               "different networks")


def score_set(run: Callable[[base.Batch], np.ndarray], kinds: frozenset[str], features: cached.Features, name: str,
              move: Callable[[np.ndarray], Any]) -> np.ndarray:
    """Scores of one set, block by block. -> (N,) float64.

    Raises:
        OODError: a feature, a logit or a score that is not finite.
    """
    scores = np.empty(features.size)
    for rows in features.chunks():
        batch = base.Batch(**{key: move(features.read(key, rows)) for key in READ if key in kinds})
        with np.errstate(over="ignore", invalid="ignore"):  # reported below
            scores[rows] = run(batch)
        if not np.isfinite(scores[rows]).all():
            row = rows.start + int(np.argmin(np.isfinite(scores[rows])))
            raise OODError(f"score '{name}' of set '{features.name}' is NaN or infinite in row {row} although its "
                           "inputs are finite; they are probably far too large: look at the checkpoint")
    return scores


def run_on(module: ModuleType, options: Any, evidence: base.Known) -> Callable[[base.Batch], np.ndarray]:
    """The fitted score as a function of a batch; the train set is let go."""
    state = module.fit(options, evidence) if hasattr(module, "fit") else None
    rest = replace(evidence, train_features=None, train_logits=None, train_labels=None, train_background=None,
                   shuffled=None, train_scores=None)

    def run(batch: base.Batch) -> np.ndarray:
        values = module.score(options, rest, state, batch)
        return values if isinstance(values, np.ndarray) else values.cpu().numpy()

    return run


def mover(device: str) -> Callable[[np.ndarray], Any]:
    """From numpy to the device; torch is imported for CUDA only."""
    if device == "cpu":
        return lambda array: array
    torch = importlib.import_module("torch")  # by name: scores on the CPU do not depend on torch's version
    if not torch.cuda.is_available():
        raise OODError("--device: no CUDA device was found; use cpu")
    return lambda array: torch.from_numpy(array).to(device)
