"""One post-hoc score of every set of one network, from cached files.

features of the sets (+ head, train features, statistics, where the score needs them) -> one float64 dataset per set:

    python -m workflow_scripts.stages.score_sets --config '{"score": "knn", "name": "knn", "options": {"K": 50}}' \\
        --sets FEATURES/digits.test.h5 FEATURES/ood.h5 --train FEATURES/digits.train.h5 --out scores.h5

A file holds the set of its name, or several in groups. Test sets are streamed. On the CPU torch is not imported;
`--device cuda` runs the same code on a GPU. Scores that need the network itself: score_network.
"""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np

from workflow_scripts.core import plugins
from workflow_scripts.core.errors import OODError, stage
from workflow_scripts.core.files import atomic
from workflow_scripts.core.section import stage_parser
from workflow_scripts.scores import base, cached
from workflow_scripts.stages.sections.score_sets import ScoreSets

READ = ("features", "logits", "background")  # of the images to score


def check_sets(expected: list[str] | None, found: list[str]) -> None:
    """Refuse other sets than those expected. Raises OODError naming both."""
    if expected is not None and sorted(expected) != sorted(found):
        raise OODError(f"--sets: the configuration asks for {', '.join(expected)}, the files hold {', '.join(found)}")
    if len(set(found)) < len(found):
        raise OODError(f"--sets: a set is given twice: {', '.join(found)}")


def read_known(kinds: frozenset[str], given: argparse.Namespace, move: Callable[[np.ndarray], Any],
               files_open: ExitStack) -> base.Known:
    """What the score needs of what is known before a test image is seen; nothing else is read.

    On the CPU a large bank stays in the file of the train features, which is closed with ``files_open``.
    """
    files = {"train": {"train_features", "train_logits", "train_labels", "train_background", "shuffled"},
             "head": {"head", "batchnorm"}, "statistics": {"statistics"}}
    for argument, provided in files.items():
        if getattr(given, argument) is None and kinds & provided:
            raise OODError(f"--{argument}: this score needs {', '.join(sorted(kinds & provided))}; give the file")
    members: dict[str, Any] = {}
    if kinds & files["train"]:
        train = files_open.enter_context(cached.Features(given.train))
        for key in ("features", "logits", "background"):
            if f"train_{key}" in kinds:
                small = given.device != "cpu" or key == "background"
                members[f"train_{key}"] = move(train.whole(key)) if small else train.bank(key)
        if "train_labels" in kinds:
            members["train_labels"] = move(train.labels)
        if "shuffled" in kinds:
            jigsaws = train.shuffled
            members["shuffled"] = base.Batch(logits=move(jigsaws.logits), background=move(jigsaws.background))
    layer, norm = cached.head(given.head) if kinds & files["head"] else (None, None)
    statistics = cached.statistics(given.statistics) if "statistics" in kinds else None
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


@stage
def main(arguments: list[str] | None = None) -> None:
    parser = stage_parser(__spec__, __doc__, ScoreSets)
    parser.add_argument("--sets", type=Path, nargs="+", required=True, help="features of the sets to score")
    parser.add_argument("--train", type=Path, help="features of the ID train set")
    parser.add_argument("--head", type=Path, help="the last linear layer")
    parser.add_argument("--statistics", type=Path, help="class means of the ID train set")
    parser.add_argument("--choice", type=Path, help="JSON of a sweep; what it chose replaces options of the same name")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, required=True, help="the scores to write")
    given = parser.parse_args(arguments)
    sets = [(path, name) for path in given.sets for name in cached.sets(path)]
    section: ScoreSets = given.config
    check_sets(section.sets, [name for _, name in sets])
    name, options = section.name, section.options
    if given.choice:
        chosen = json.loads(given.choice.read_text(encoding="utf-8"))
        options = replace(options, **{key: chosen[key] for key in asdict(options).keys() & chosen.keys()})
    module = plugins.load("scores", section.score)
    kinds = base.needs(module, options)
    if kinds & {"network", "scores"}:
        what, where = ("the network itself", "score_network") if "network" in kinds else ("other scores", "fuse_scores")
        raise OODError(f"score '{name}' needs {what}; run workflow_scripts.stages.{where}")
    move = mover(given.device)
    with ExitStack() as files_open:
        evidence = read_known(kinds, given, move, files_open)
        base.require(evidence, kinds, name, section.network)
        for place in sets:
            with cached.Features(*place) as features:
                agree(features, evidence)
        run = run_on(module, options, evidence)
        del evidence
        write(given.out, sets, run, kinds, move, name, section.score, options)


def write(target: Path, sets: list[tuple[Path, str]], run: Callable[[base.Batch], np.ndarray], kinds: frozenset[str],
          move: Callable[[np.ndarray], Any], name: str, score: str, options: Any) -> None:
    """Score every set into ``target``."""
    with atomic(target) as partial, h5py.File(partial, "w") as out:
        out.attrs.update(score=score, name=name, options=json.dumps(asdict(options), sort_keys=True))
        for place in sets:
            with cached.Features(*place) as features:
                out[features.name] = score_set(run, kinds, features, name, move)


if __name__ == "__main__":
    main()
