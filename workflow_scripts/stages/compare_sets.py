"""Compare the sets of an ID set when they are prepared: classes, identical images, counts -> one JSON.

    python -m workflow_scripts.stages.compare_sets --config JSON --stores DATA/digits.train.h5 DATA/digits.test.h5 \\
        DATA/faces.test.h5 --out digits.json

What would make results mean nothing is refused: an ID test set of other classes than the train images, or in another
order; a test set all of whose images are among those to train on; one class; one image; fewer train images than a score
needs. The file says how many images of each test set are identical to one of another set: equal size
and pixels or, of sets with `pixels: decoded`, equal files. A set of the one kind is not compared with one of the other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workflow_scripts.core.errors import OODError, stage
from workflow_scripts.core.files import atomic
from workflow_scripts.core.section import stage_parser
from workflow_scripts.data.class_names import same_classes
from workflow_scripts.data.images.store import open_store
from workflow_scripts.data.images.together import Hashes, hashes, identical, named
from workflow_scripts.stages.sections.compare_sets import Compared, CompareSets


def check_train(name: str, classes: Sequence[str], count: int, least: Mapping[str, int]) -> None:
    """Refuse a train set of one class, or one too small for a score.

    Raises:
        OODError: it is.
    """
    if len(classes) == 1:
        raise OODError(f"{name} has one class, {classes[0]}; an ID set has at least two to tell apart")
    for score, needed in least.items():
        if count < needed:
            raise OODError(f"score '{score}' needs {needed:,} ID train images, {name} has {count:,}; change its "
                           "options, or give the set more images")


def compare(section: CompareSets, stores: Sequence[str]) -> list[dict[str, Any]]:
    """Identical images of every test set in every set before it.

    Returns:
        ``set``, ``of``, ``identical`` and ``count`` (images of ``set``) of each pair that can be compared; a set with
        itself tells images that it has several times.

    Raises:
        OODError: sets that do not go together.
    """
    found: list[dict[str, Any]] = []
    seen: list[tuple[Compared, str, Hashes | None]] = []
    classes: list[str] = []
    for entry, path in zip(section.sets, stores, strict=True):
        with open_store(path) as file:
            name, count = named(file), len(file["labels"])
            stored = hashes(file)
            these = stored.loaded() if stored is not None else None
            own = json.loads(file.attrs["classes"])
        if not seen:
            classes = own
            check_train(name, classes, count, section.least)
        elif entry.use in ("train", "test") and classes:
            same_classes(classes, own, seen[0][1], name)
        if entry.use != "train":
            if count == 1:
                raise OODError(f"{name} has one image; a share of it can be 0 or 1 alone: give it more images")
            for other, called, known in seen:
                same = identical(these, known)
                if same is None:
                    continue
                found.append({"set": entry.name, "of": other.name, "identical": same, "count": count})
                if same == count and other.use == "train":
                    raise OODError(f"{name}: all {count:,} images are also in {called}, which networks are trained on; "
                                   "a test set needs other images")
                if same == count and entry.use == "validation":
                    raise OODError(f"{name}: all {count:,} images are also in {called}; options are chosen on images "
                                   "that nothing is trained or tested on, and ID and OOD ones are apart")
        if these is not None and (again := these.repeated()):
            found.append({"set": entry.name, "of": entry.name, "identical": again, "count": count})
        seen.append((entry, name, these))
    return found


@stage
def main(argv: list[str] | None = None) -> None:
    """Entry point of the stage."""
    parser = stage_parser(__spec__, __doc__, CompareSets)
    parser.add_argument("--stores", required=True, nargs="+", help="stores, in the order of the config's sets")
    parser.add_argument("--out", required=True, type=Path, help="JSON to write")
    args = parser.parse_args(argv)
    if len(args.config.sets) != len(args.stores):
        raise OODError(f"{len(args.config.sets)} sets need as many --stores, found {len(args.stores)}")
    found = compare(args.config, args.stores)
    for pair in found:
        if pair["identical"]:
            print(f"{pair['set']}: {pair['identical']:,} of {pair['count']:,} images are "
                  f"{'there twice or more' if pair['set'] == pair['of'] else 'also in ' + pair['of']}", flush=True)
    with atomic(args.out) as partial:
        partial.write_text(json.dumps({"pairs": found}, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
