"""One post-hoc score of every set of one network, from cached files.

features of the sets (+ head, train features, statistics, where the score needs them) -> one float64 dataset per set:

    python -m workflow_scripts.stages.score_sets --config '{"score": "knn", "name": "knn", "options": {"K": 50}}' \\
        --sets FEATURES/digits.test.h5 FEATURES/ood.h5 --train FEATURES/digits.train.h5 --out scores.h5

A file holds the set of its name, or several in groups. Test sets are streamed. On the CPU torch is not imported;
`--device cuda` runs the same code on a GPU. Scores that need the network itself: score_network.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from workflow_scripts.core import plugins
from workflow_scripts.core.errors import OODError, stage
from workflow_scripts.core.files import atomic
from workflow_scripts.core.section import stage_parser
from workflow_scripts.scores import base, cached, chosen
from workflow_scripts.scores.run import add_arguments, agree, given_files, mover, read_known, run_on, score_set
from workflow_scripts.stages.sections.score_sets import ScoreSets


def check_sets(expected: list[str] | None, found: list[str]) -> None:
    """Refuse other sets than those expected. Raises OODError naming both."""
    if expected is not None and sorted(expected) != sorted(found):
        raise OODError(f"--sets: the configuration asks for {', '.join(expected)}, the files hold {', '.join(found)}")
    if len(set(found)) < len(found):
        raise OODError(f"--sets: a set is given twice: {', '.join(found)}")


@stage
def main(arguments: list[str] | None = None) -> None:
    parser = stage_parser(__spec__, __doc__, ScoreSets)
    parser.add_argument("--sets", type=Path, nargs="+", required=True, help="features of the sets to score")
    add_arguments(parser)
    parser.add_argument("--choice", type=Path, help="JSON of a search; what it chose replaces options of the same name")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, required=True, help="the scores to write")
    given = parser.parse_args(arguments)
    sets = [(path, name) for path in given.sets for name in cached.sets(path)]
    section: ScoreSets = given.config
    check_sets(section.sets, [name for _, name in sets])
    name, options = section.name, chosen.read(section.options, given.choice)
    module = plugins.load("scores", section.score)
    kinds = base.needs(module, options)
    if kinds & {"network", "scores"}:
        what, where = ("the network itself", "score_network") if "network" in kinds else ("other scores", "fuse_scores")
        raise OODError(f"score '{name}' needs {what}; run workflow_scripts.stages.{where}")
    move = mover(given.device)
    with ExitStack() as files_open:
        evidence = read_known(kinds, given_files(given), given.device, move, files_open)
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
