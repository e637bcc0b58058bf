"""Choose options of a score among those that its declaration names, without any test image, from cached features.

features of an ID set and of OOD sets, or of pseudo-OOD copies of ID train images (+ head, train features, statistics,
where the score needs them) -> a table of AUROC and FPR95 at each point, and the choice:

    python -m workflow_scripts.stages.choose_options --config '{"score": "knn", "id": "cifar10_val.test"}' \\
        --sets validation.h5 --train FEATURES/cifar10.train.h5 --csv knn.csv --json knn.json

With copies, the images that they are of stand for ID images and are left out of the bank of train features; class means
(``--statistics``) have them. AUROC and FPR95 have ID as positive; of several OOD sets the mean counts. Points that the
network or the bank is too small for are left out. Where options as configured are no point of the space, they are tried
too, so that the choice is never worse than they are on these images.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from workflow_scripts.core import plugins
from workflow_scripts.core.errors import OODError, stage
from workflow_scripts.core.section import stage_parser
from workflow_scripts.scores import base, cached, search
from workflow_scripts.scores.run import READ, add_arguments, agree, given_files, mover, read_known, run_on
from workflow_scripts.stages.sections.choose_options import ChooseOptions

Inputs = dict[str, np.ndarray]
"""What a score reads of the images of a set, by the names of :class:`workflow_scripts.scores.base.Batch`."""


class Trial:
    """A score on fixed images, as a function of its options.

    Args:
        given: files by argument, as :func:`workflow_scripts.scores.run.read_known` takes them.
        sets: files of ``--sets``.
    """

    def __init__(self, section: ChooseOptions, given: dict[str, Path | None], sets: list[Path], files: ExitStack):
        self.section, self.module = section, plugins.load("scores", section.score)
        self.kinds = plugins.spec("scores", section.score).needs
        if self.kinds & {"network", "scores"}:
            needed = sorted(self.kinds & {"network", "scores"})
            raise OODError(f"score '{section.name}' needs {', '.join(needed)}, which this stage does not read; options "
                           "of scores that run the network: workflow_scripts.stages.choose_network_options")
        opened = {name: files.enter_context(cached.Features(path, name)) for path in sets for name in cached.sets(path)}
        numbers = None
        if section.id is None:
            (copies,) = opened.values()
            numbers = cached.dataset(copies.file, "index", 1)[:]
            path = given.get("train")
            if path is None:
                raise OODError("--train: the images that copies were made of are read from it; give the file")
            train = files.enter_context(cached.Features(path))
            self.id = {key: train.some(key, numbers) for key in self._read()}
        elif section.id not in opened:
            raise OODError(f"--sets: the configuration asks for {section.id}, the files hold {', '.join(opened)}")
        else:
            self.id = self._inputs(opened.pop(section.id))
        if not opened:
            raise OODError("--sets: no OOD set; expected at least one")
        self.known = read_known(self.kinds, given, "cpu", mover("cpu"), files, numbers)
        base.require(self.known, self.kinds, section.name, section.network)
        for features in opened.values():
            agree(features, self.known)
        self.ood = {name: self._inputs(features) for name, features in opened.items()}

    def measure(self, points: Sequence[Any]) -> list[search.Found]:
        """How good each of these options is, or that the network or the bank is too small for them."""
        return [self._at(options) for options in points]

    def _at(self, options: Any) -> search.Found:
        try:
            run = run_on(self.module, options, self.known)
            id, *others = (self._scores(run, part) for part in (self.id, *self.ood.values()))
            return search.quality(id, others)
        except OODError as error:
            return error

    def _scores(self, run: Any, images: Inputs) -> np.ndarray:
        size = len(next(iter(images.values())))
        with np.errstate(over="ignore", invalid="ignore"):  # reported with the point
            return np.concatenate([run(base.Batch(**{key: values[start:start + cached.ROWS]
                                                     for key, values in images.items()}))
                                   for start in range(0, size, cached.ROWS)])

    def _read(self) -> list[str]:
        return [key for key in READ if key in self.kinds]

    def _inputs(self, features: cached.Features) -> Inputs:
        return {key: features.whole(key) for key in self._read()}


@stage
def main(argv: list[str] | None = None) -> None:
    parser = stage_parser(__spec__, __doc__, ChooseOptions)
    parser.add_argument("--sets", type=Path, nargs="+", required=True, help="features of ID and OOD sets, or of copies")
    add_arguments(parser)
    parser.add_argument("--csv", type=Path, required=True, help="table of all points to write")
    parser.add_argument("--json", type=Path, required=True, help="choice to write")
    given = parser.parse_args(argv)
    section: ChooseOptions = given.config
    space = search.declared(plugins.spec("scores", section.score).space, section.name)
    with ExitStack() as files:
        trial = Trial(section, given_files(given), given.sets, files)
        rows = search.rows(trial.measure, section.options, space, section.at_most, section.criterion)
    print(search.write(rows, section.options, space, section.name, section.criterion, given.csv, given.json),
          flush=True)


if __name__ == "__main__":
    main()
