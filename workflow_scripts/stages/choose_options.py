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

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, replace
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workflow_scripts.core import plugins
from workflow_scripts.core.errors import OODError, stage
from workflow_scripts.core.files import atomic
from workflow_scripts.core.section import stage_parser
from workflow_scripts.metrics.ood import auroc, curve, fpr95
from workflow_scripts.scores import base, cached
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
            raise OODError(f"score '{section.name}' needs {', '.join(sorted(self.kinds & {'network', 'scores'}))}; "
                           "options of scores of cached features alone can be chosen")
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

    def at(self, options: Any) -> dict[str, float]:
        """AUROC and FPR95 with these options, means over the OOD sets.

        Raises:
            OODError: the network or the bank is too small for them.
        """
        run = run_on(self.module, options, self.known)
        id, *others = (self._scores(run, part) for part in (self.id, *self.ood.values()))
        curves = [curve(id, other) for other in others]
        return {"auroc": float(np.mean([auroc(one) for one in curves])),
                "fpr95": float(np.mean([fpr95(one) for one in curves]))}

    def _scores(self, run: Any, images: Inputs) -> np.ndarray:
        size = len(next(iter(images.values())))
        with np.errstate(over="ignore", invalid="ignore"):  # reported below
            found = np.concatenate([run(base.Batch(**{key: values[start:start + cached.ROWS]
                                                      for key, values in images.items()}))
                                    for start in range(0, size, cached.ROWS)])
        if not np.isfinite(found).all():
            raise OODError("scores are NaN or infinite")
        return found

    def _read(self) -> list[str]:
        return [key for key in READ if key in self.kinds]

    def _inputs(self, features: cached.Features) -> Inputs:
        return {key: features.whole(key) for key in self._read()}


def tried(trial: Trial, options: Any, space: dict[str, tuple[Any, ...]], at_most: int,
          criterion: str) -> Iterator[dict[str, Any]]:
    """A row for each point: values of the space's options, ``auroc``, ``fpr95`` and, where it is left out, ``why``.

    All points where they are few; else the values of one option after the other, each with the best before it.
    """
    seen: set[tuple[Any, ...]] = set()

    def row(values: tuple[Any, ...]) -> Iterator[dict[str, Any]]:
        if values in seen:
            return
        seen.add(values)
        point = dict(zip(space, values, strict=True))
        try:
            yield {**point, **trial.at(replace(options, **point)), "why": ""}
        except OODError as error:
            yield {**point, "auroc": np.nan, "fpr95": np.nan, "why": str(error)}

    first = tuple(getattr(options, name) for name in space)
    rows = list(row(first))
    if prod(map(len, space.values())) <= at_most:
        rows += [one for values in product(*space.values()) for one in row(values)]
    else:
        for name, values in space.items():
            fitting = [one for one in rows if not one["why"]]
            now = best(fitting, criterion) if fitting else dict(zip(space, first, strict=True))
            rows += [one for value in values for one in row(tuple({**now, name: value}[key] for key in space))]
    yield from rows


def best(rows: list[dict[str, Any]], criterion: str) -> dict[str, Any]:
    """The best row by the criterion, then by the other number, then the first."""
    def rank(row: dict[str, Any]) -> tuple[float, float]:
        numbers = (-row["auroc"], row["fpr95"])
        return numbers if criterion == "auroc" else numbers[::-1]

    return min(rows, key=rank)


@stage
def main(argv: list[str] | None = None) -> None:
    parser = stage_parser(__spec__, __doc__, ChooseOptions)
    parser.add_argument("--sets", type=Path, nargs="+", required=True, help="features of ID and OOD sets, or of copies")
    add_arguments(parser)
    parser.add_argument("--csv", type=Path, required=True, help="table of all points to write")
    parser.add_argument("--json", type=Path, required=True, help="choice to write")
    given = parser.parse_args(argv)
    section: ChooseOptions = given.config
    space = plugins.spec("scores", section.score).space
    if not space:
        raise OODError(f"score '{section.name}' declares no options to search among; take it out, or give its SPEC a "
                       "space")
    with ExitStack() as files:
        trial = Trial(section, given_files(given), given.sets, files)
        rows = list(tried(trial, section.options, space, section.at_most, section.criterion))
    fitting = [row for row in rows if not row["why"]]
    if not fitting:
        raise OODError(f"score '{section.name}': no point of its space can be computed; the first: {rows[0]['why']}")
    choice = {key: value for key, value in best(fitting, section.criterion).items() if key != "why"}
    with atomic(given.csv) as partial:
        pd.DataFrame(rows).to_csv(partial, index=False)
    with atomic(given.json) as partial:
        partial.write_text(json.dumps({**choice, "points": len(rows), "left_out": len(rows) - len(fitting),
                                       "options": asdict(section.options)}, indent=1, sort_keys=True) + "\n")
    print(f"{', '.join(f'{name} = {choice[name]}' for name in space)}: AUROC {choice['auroc']:.4f}, "
          f"FPR95 {choice['fpr95']:.4f} ({len(fitting)} of {len(rows)} points)", flush=True)


if __name__ == "__main__":
    main()
