"""Whether the sets of an ID set go together, as far as it can be told before the first job.

Of class folders the names are looked at where they lie; archives are, when they are prepared
(:mod:`workflow_scripts.stages.compare_sets` then compares all of it, and the images).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePath

from workflow_scripts.config import catalogue
from workflow_scripts.config.catalogue import Dataset
from workflow_scripts.core import plugins, sources
from workflow_scripts.core.errors import OODError
from workflow_scripts.data.archives.listing import SUFFIXES
from workflow_scripts.data.archives.trees import reason
from workflow_scripts.data.class_names import check_numbers, same_classes
from workflow_scripts.work.plan import Plan


def check(plan: Plan) -> None:
    """Refuse an ID set with one class, with other classes in its test split, with too few train images for a score, or
    with a test set that is its train set.

    Raises:
        OODError: the set, and what is wrong with it.
    """
    for id in dict.fromkeys(run.id for run in plan.runs.values()):
        row = plan.datasets[id]
        number = row.classes if isinstance(row.classes, int) else len(row.classes)
        if number == 1:
            raise OODError(f"dataset '{id}', key classes: one class; an ID set has at least two to tell apart")
        _class_folders(plan, row)
        _least(plan, row)
        for name, split in plan.sets(id)[1:]:
            if _one_image(plan.datasets[name], split, plan.data_root):
                raise OODError(f"dataset '{name}' ({split}) has one image; a share of it can be 0 or 1 alone: give it "
                               "more images")
            if images(plan.datasets[name], split) == images(row, "train"):
                raise OODError(f"dataset '{name}' ({split}): the very images of '{id}' (train), which networks are "
                               "trained on; a test set needs other images")


def images(row: Dataset, split: str) -> str:
    """Which images a split consists of, whatever its name and geometry: several rows may stand for the same."""
    return repr((row.reader, sorted(row.options_of(split).items()), row.keep, row.list_of(split), row.limit_per_class,
                 row.sample))


def _least(plan: Plan, row: Dataset) -> None:
    """Scores have as many ID train images as they need, where the row states how many there are."""
    count = row.counts.get("train")
    if count is None or plan.config.limit.images is not None:
        return
    for name, needed in least(plan, row.name).items():
        if count < needed:
            raise OODError(f"score '{name}' needs {needed:,} ID train images, dataset '{row.name}' has {count:,}; "
                           "change its options, or leave it out")


def least(plan: Plan, id: str) -> dict[str, int]:
    """Score -> ID train images that it needs: neighbours, or what it is fitted to; those that need more than one."""
    needed = {}
    for run in plan.runs.values():  # whatever `only` keeps: it is compared once
        for name, score in run.scores.items() if run.id == id else ():
            spec = plugins.spec("scores", score.module)
            options = plugins.parse_options("scores", score.module, score.options, f"score '{name}'")
            needed[name] = max(spec.least, getattr(options, spec.bank) if spec.bank else 1)
    return {name: count for name, count in needed.items() if count > 1}


def _class_folders(plan: Plan, row: Dataset) -> None:
    """The class folders of train and test have the same names, whose order is clear."""
    named = {split: folders for split in ("train", "test") if split in row.splits
             and (folders := class_folders(row, split, plan.data_root))}
    for split, folders in named.items():
        if isinstance(row.classes, int) and not row.options_of(split).get("order"):
            try:
                check_numbers(folders)
            except OODError as error:
                raise OODError(f"dataset '{row.name}' ({split}): {error}") from None
    if len(named) == 2:
        same_classes(named["train"], named["test"], f"dataset '{row.name}' (train)", f"dataset '{row.name}' (test)")


def class_folders(row: Dataset, split: str, root: str | os.PathLike | None) -> list[str]:
    """Names of the folders that name a split's classes, sorted; empty where others name them, or where they lie in
    archives or are not there."""
    options = plugins.parse_options("data.readers", row.reader, row.options_of(split), row.name)
    if getattr(options, "labels", "") != "folders" or not row.classes or any(
            getattr(options, other, "") for other in ("only", "annotations", "devkit")):
        return []
    found = sources.locate(catalogue.files(row, split), root)
    if not all(path.is_dir() for path in found):
        return []
    return sorted({entry.name for path in found if (folder := path / options.under.strip("/")).is_dir()
                   for entry in os.scandir(folder) if not reason(entry.name) and entry.is_dir() and _has_image(entry)})


def _one_image(row: Dataset, split: str, root: str | os.PathLike | None) -> bool:
    """Whether a split is read from a folder with a single image; what links lead to is taken to be more."""
    options = plugins.parse_options("data.readers", row.reader, row.options_of(split), row.name)
    found = sources.locate(catalogue.files(row, split), root) if hasattr(options, "under") else []
    if not found or not all(path.is_dir() for path in found):
        return False
    count = 0
    for path in found:
        for name, link in _files(path / options.under.strip("/")):
            count += 2 if link else PurePath(name).suffix.lower() in SUFFIXES
            if count > 1:
                return False
    return count == 1


def _files(folder: Path) -> Iterator[tuple[str, bool]]:
    """Names of files at every depth, and of links; whether it is a link."""
    for here, folders, files in os.walk(folder, followlinks=False):
        folders[:] = [name for name in folders if not reason(name)]
        for name in (*files, *folders):
            link = os.path.islink(os.path.join(here, name))
            if not reason(name) and (link or name in files):
                yield name, link


def _has_image(folder: os.DirEntry[str]) -> bool:
    """Whether an image lies in a folder; what links lead to is taken to be one."""
    return any(PurePath(file).suffix.lower() in SUFFIXES or os.path.islink(Path(here) / file)
               for here, folders, files in os.walk(folder.path, followlinks=False)
               for file in (*files, *(name for name in folders if os.path.islink(Path(here) / name))))
