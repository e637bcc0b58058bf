"""Prepare one split of one dataset: raw files -> image store (HDF5).

Command: ``python -m workflow_scripts.stages.prepare_dataset --config JSON --out STORE.h5 [--data-root FOLDER]
[--list FILE]``

Raw files lie below the data root, by default the environment variable
OOD_DATA.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np

from workflow_scripts.core import plugins
from workflow_scripts.core.errors import OODError, stage
from workflow_scripts.core.files import read_lines, uncommented
from workflow_scripts.core.section import stage_parser
from workflow_scripts.core.sources import printable, shown
from workflow_scripts.data.class_names import check_numbers
from workflow_scripts.data.image_list import in_list
from workflow_scripts.data.images.geometry import resize
from workflow_scripts.data.images.store import write_store
from workflow_scripts.data.reading import Images
from workflow_scripts.stages.sections.prepare_dataset import PrepareDataset

REPOSITORY = Path(__file__).resolve().parents[2]


def first_per_class(labels: np.ndarray, count: int) -> np.ndarray:
    """The first ``count`` images of each label, in order. labels (N,) -> indices, ascending.

    With 1,000 this is the rule by which the papers' users cut SVHN's test set to 10,000 (himplos 1c, npos 3.3).
    """
    order = np.argsort(labels, kind="stable")
    sorted_labels = labels[order]
    rank = np.arange(len(labels)) - np.searchsorted(sorted_labels, sorted_labels)  # place among its class
    return np.sort(order[rank < count])


def select(labels: np.ndarray, section: PrepareDataset) -> np.ndarray:
    """Images to keep, ascending: ``limit_per_class``, ``sample``, ``hold_out``, then ``limit``. labels (N,) -> (M,).

    ``limit`` cuts a run short: so many images evenly spread or, where the set has classes, the first few of each class
    that add up to about as many, at least two.
    """
    index = np.arange(len(labels))
    if section.limit_per_class:
        index = first_per_class(labels, section.limit_per_class)
    if section.sample:
        random = np.random.RandomState(section.sample.seed)  # a frozen stream: the same list under every numpy
        index = np.sort(index[random.permutation(len(index))[:section.sample.n]])
    if section.hold_out:
        index = held_out(index, section.hold_out, section.split == "val")
    if section.limit and section.limit < len(index):
        classes = len(np.unique(labels)) if section.classes else 0
        if classes:  # no class may lose all its images
            return index[first_per_class(labels[index], max(2, section.limit // classes))]
        index = index[np.linspace(0, len(index) - 1, section.limit).astype(np.int64)]
    return index


def check_count(found: int, section: PrepareDataset) -> None:
    """The set is the one that its name says: as many images as its row states, but for those it allows to be broken.

    A row that holds some of train out may state the others, or all.

    Raises:
        OODError: it has another number.
    """
    if section.limit or not section.count:
        return
    least = section.count - getattr(section.options, "allow_corrupt", 0)
    least -= section.listed.allow_missing if section.listed else 0
    held = section.hold_out or 0 if section.split == "train" else 0
    if not any(least <= number <= section.count for number in (found, found + held)):
        part = f"{section.dataset}_part"
        raise OODError(
            f"{found:,} images, where the row of the table of datasets states {section.count:,}; bring the complete "
            f"set, or let a row of another name say what it is and use that: datasets: {{{part}: "
            f"{{of: {section.dataset}, label: ..., counts: {{{section.split}: {found}}}}}}}")


def held_out(index: np.ndarray, count: int, val: bool) -> np.ndarray:
    """``count`` of the images, evenly spread, or (not ``val``) all others. (N,) -> (count,) or (N - count,).

    Raises:
        OODError: none would be left.
    """
    if count >= len(index):
        raise OODError(f"hold_out: {count:,} of {len(index):,} images leave none to train on")
    at = (2 * np.arange(count) + 1) * len(index) // (2 * count)
    return index[at] if val else np.delete(index, at)


def classes_by_name(declared: int | list[str], images: Images) -> Images:
    """The images with the labels and the class names that the row declares; no names where labels are not used.

    Names that a row declares are those of the raw files, in the order that is meant, wherever the raw files name their
    classes; where the format has numbers alone, they are the numbers' names.

    Raises:
        OODError: the row declares another number of classes or other names than the raw files have; folders whose names
            are numbers, and no order is declared.
    """
    number = declared if isinstance(declared, int) else len(declared)
    if not number:
        return replace(images, classes=())
    if len(images.classes) != number:
        raise OODError(f"classes: {number} declared, the raw files have {len(images.classes)}"
                       f"{' (' + ', '.join(images.classes[:5]) + ', ...)' if images.classes else ''}")
    if isinstance(declared, int):
        if images.named == "folders":
            check_numbers(images.classes)
        return images
    if images.named == "numbers":
        return replace(images, classes=tuple(declared))
    stated = images.in_order(declared, "classes")
    if images.named == "stated" and images.classes != stated.classes:
        raise OODError("classes: the reader's options state the same classes in another order "
                       f"({', '.join(images.classes[:5])}, ...); leave one of the two out")
    return stated


def listed(names: Sequence[str], path: Path) -> np.ndarray:
    """Images whose names a list gives, one a line; a name may lack leading folders. ``#`` at the start or after a space
    begins a comment, unless an image is called so.

    Returns:
        Indices into ``names``, ascending.

    Raises:
        OODError: no such list, or a name that no image or more than one image has.
    """
    lines = read_lines(path, "the list of images to keep (a row's `keep` names it, `python -m "
                             "workflow_scripts.publish_list` writes one)")
    by_end: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        by_end.setdefault(printable(name.rpartition("/")[2]), []).append(i)

    def called(entry: str) -> list[int]:
        return [i for i in by_end.get(entry.rpartition("/")[2], []) if f"/{printable(names[i])}".endswith(f"/{entry}")]

    found, problems, wanted = set(), [], 0
    for line in filter(None, lines):
        entry = line if called(line) else uncommented(line)
        if not entry:
            continue
        wanted, there = wanted + 1, called(entry)
        if len(there) == 1:
            found.add(there[0])
        else:
            problems.append(f"{entry} ({len(there)} images)")
    if not wanted:
        raise OODError(f"{path}: the list names no image; write one name a line")
    if problems:
        raise OODError(f"{path}: {len(problems)} of {wanted} names do not name exactly one image: "
                       f"{', '.join(problems[:5])}; other raw files, or names with too few folders")
    return np.array(sorted(found), np.int64)


def prepare(section: PrepareDataset, out: Path, root: Path | None, files: Sequence[str] = (),
            image_list: Path | None = None) -> list[str]:
    """Write the store.

    Args:
        section: becomes the store's definition.
        files: read in the place of the reader's option ``files``: downloaded ones, or the packed archive.
        image_list: file of the list that chooses and orders the images, where the section has one.

    Returns:
        Notes for the user: files left out, and what was done to pixels.

    Raises:
        OODError: the dataset and what is wrong with it, such as another number of images than its row states.
    """
    where = f"dataset '{section.dataset}' ({section.split})"
    read_from = {"files": [str(Path(name).absolute()) for name in files]} if files else {}
    options = section.options
    if read_from:
        options = plugins.parse_options("data.readers", section.reader, {**asdict(options), **read_from}, where)
    try:
        images = plugins.load("data.readers", section.reader).read(options, root)
        if section.listed:
            if image_list is None:
                raise OODError(f"the image list {section.listed.name} is expected by --list")
            images = in_list(images, image_list, section.listed)
        images = classes_by_name(section.classes, images)
        if section.keep:
            chosen = listed(images.names, REPOSITORY / section.keep[0])
            index = chosen[select(images.labels[chosen], section.model_copy(update={"sample": None}))]
        else:
            index = select(images.labels, section)
        check_count(len(index), section)
        archive = None
        if section.pixels == "decoded":
            if images.archive is not None:
                archive = _relative(images.archive[0], root)
            elif not section.limit:
                raise OODError("pixels: decoded needs the LMDB file of the pack stage; give it by --files")
        left_out = write_store(out, images, index, images.classes,
                               section.model_dump(mode="json"), partial(resize, geometry=section.geometry), archive)
    except OODError as error:
        message = str(error)
        raise OODError(message if message.startswith(where) else f"{where}: {message}") from None
    notes = [f"{where}: left out: {text}" for text in images.left_out.lines()]
    notes += [f"{where}: {text}" for text in images.remarks.lines()]
    if left_out and section.count:
        notes.append(f"{where}: {len(index) - len(left_out):,} images; the complete set has {section.count:,}")
    return notes


def _relative(path: Path, root: Path | None) -> str:
    """A path as a store names it: from where the run is, or below the data root, so that both may move."""
    path = path.absolute()
    return path.relative_to(Path.cwd()).as_posix() if path.is_relative_to(Path.cwd()) else shown(path, root)


@stage
def main(argv: list[str] | None = None) -> None:
    """Entry point of the stage."""
    parser = stage_parser(__spec__, __doc__, PrepareDataset)
    parser.add_argument("--out", required=True, type=Path, help="store to write")
    parser.add_argument("--files", nargs="+", help="downloaded or packed files, read instead of the option `files`")
    parser.add_argument("--list", type=Path, help="the image list that the config names, or an archive of it")
    parser.add_argument("--data-root", type=Path, default=os.environ.get("OOD_DATA"), help="folder of the raw files")
    args = parser.parse_args(argv)
    for note in prepare(args.config, args.out, args.data_root, args.files or (), args.list):
        print(f"note: {note}", file=sys.stderr)


if __name__ == "__main__":
    main()
