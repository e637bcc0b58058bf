"""Two scores of the same sets in one, with constants from the ID train images: two score files -> one.

    python -m workflow_scripts.stages.fuse_scores --config '{"score": "fusion", "name": "energy_fused", "options":
    {"weight": 1.0},
        "train": "digits.train"}' --foreground energy.h5 --background background.h5 --out energy_fused.h5

Both files hold the ID train set beside the test sets.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import h5py
import numpy as np

from workflow_scripts.core import plugins
from workflow_scripts.core.errors import OODError, stage
from workflow_scripts.core.files import atomic
from workflow_scripts.core.section import stage_parser
from workflow_scripts.scores.base import Batch, Known
from workflow_scripts.scores.cached import dataset, opened
from workflow_scripts.stages.sections.fuse_scores import FuseScores


def joined(files: list[h5py.File], name: str) -> np.ndarray:
    """Both scores of a set. -> (N, 2) float64.

    Raises:
        OODError: a file lacks the set, or the two hold another number of images.
    """
    columns = [dataset(file, name, 1)[:] for file in files]
    if len(columns[0]) != len(columns[1]):
        raise OODError(f"set '{name}': {len(columns[0])} scores in {files[0].filename}, {len(columns[1])} in "
                       f"{files[1].filename}; they are of different runs, delete both and run again")
    return np.stack(columns, axis=1)


@stage
def main(argv: list[str] | None = None) -> None:
    parser = stage_parser(__spec__, __doc__, FuseScores)
    parser.add_argument("--foreground", type=Path, required=True, help="score file of the foreground score")
    parser.add_argument("--background", type=Path, required=True, help="score file of the background score")
    parser.add_argument("--out", type=Path, required=True, help="the scores to write")
    given = parser.parse_args(argv)
    section: FuseScores = given.config
    module, options = plugins.load("scores", section.score), section.options
    with opened(given.foreground) as foreground, opened(given.background) as background:
        files = [foreground, background]
        state = module.fit(options, Known(train_scores=joined(files, section.train)))
        with atomic(given.out) as partial, h5py.File(partial, "w") as out:
            out.attrs.update(score=section.score, name=section.name)
            out.attrs["options"] = json.dumps(asdict(options), sort_keys=True)
            for name in foreground:
                out[name] = module.score(options, Known(), state, Batch(scores=joined(files, name)))


if __name__ == "__main__":
    main()
