"""Images of a dataset in the choice and order of a published list.

A list is a text of lines ``path label``, as OpenOOD's ``benchmark_imglist``; its paths are those of OpenOOD's copies of
the images. :func:`in_list` finds each of them among the images of the official raw files, or of those copies:

======= ===========================================================================================================
``by``  the image of the path ``set/folder/file``
======= ===========================================================================================================
folders has this file name and, in its path, the folders below ``set`` in this order (others may be between them)
name    has this file name, in whatever folder
mnist   ``set/test/8_8486.jpg``: number 8,486, from 0, of the test file; its label is 8
svhn    ``set/test/022008_2.jpg``: number 22,008, from 1; its label is 2
cifar   ``set/test/ship/0281.png``: the 281st of its class in file order; classes in alphabetical order
======= ===========================================================================================================

The numbers of MNIST and SVHN are known to be official ones: each file name holds the label, which is compared for every
image. Those of CIFAR are taken for the order in which the usual converter, cifar2png, writes PNG files: one counter for
each class, from 1. No list can confirm or contradict that. OpenOOD's copies of CIFAR are PNG files, which keep the
official pixels; those of MNIST and SVHN are JPEG files, which do not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.files import decoded as in_utf8
from workflow_scripts.core.files import list_digests, list_lines
from workflow_scripts.core.listed import ListUsed
from workflow_scripts.data.archives import unpack
from workflow_scripts.data.reading import Images

ABSENT = "images of the list that are not there"
_NAMED = 5  # images that an error names


def read_list(path: Path, listed: ListUsed) -> tuple[list[str], np.ndarray]:
    """Paths and labels of a list, which is checked.

    Args:
        path: the list, or an archive with a file ``.../{name}.txt``.
        listed: its name, count and hashes.

    Returns:
        Paths, and labels int64 (N,), -1 where there is none.

    Raises:
        OODError: there is no such file, or it is another list: by its count, its hashes, or a line of another form.
    """
    where = f"{path}: image list {listed.name}"
    lines = list_lines(in_utf8(_content(path, listed.name), path))
    again = "take OpenOOD v1.5's list (config/imglists.yaml says where), or move this one away so that it is fetched"
    if len(lines) != listed.count:
        raise OODError(f"{where}: {listed.count:,} lines expected, found {len(lines):,}; {again}")
    found = list_digests(lines)
    for kind in ("paths", "lines"):
        if found[kind] != getattr(listed, kind):
            raise OODError(f"{where}: sha256 of its sorted {kind} {getattr(listed, kind)} expected, found "
                           f"{found[kind]}; {again}")
    parts = [line.rpartition(" ") for line in lines]
    try:
        labels = np.array([int(label) for _, _, label in parts], np.int64)
    except ValueError:
        raise OODError(f"{where}: lines `path label` with a whole number expected; {again}") from None
    return [name for name, _, _ in parts], labels


def _content(path: Path, name: str) -> bytes:
    """The bytes of a list, out of an archive where it lies in one."""
    if path.suffix == ".txt":
        try:
            return path.read_bytes()
        except OSError as error:
            raise OODError(f"{path}: image list {name} cannot be read ({error.strerror})") from None
    for member in unpack.members(path):
        if f"/{member.name}".endswith(f"/{name}.txt"):
            return member.read()
    raise OODError(f"{path}: no image list {name}.txt in it; put the list at benchmark_imglist/{name}.txt below the "
                   "data root, or move the archive away so that it is fetched")


def in_list(images: Images, path: Path, listed: ListUsed) -> Images:
    """The images that a list names, in its order, with its labels where it has some.

    Args:
        images: what a reader found in the raw files.
        path: the list, or an archive that holds it.
        listed: which list, how its paths are understood, and how many images may be missing.

    Raises:
        OODError: as :func:`read_list`; more images are missing than are allowed, the first ones named; a path that
            several images fit; a label that is another one in the raw files.
    """
    paths, labels = read_list(path, listed)
    numbers = np.array(list(_numbers(images, paths, listed)), np.int64)
    there = numbers >= 0
    absent = [paths[i] for i in np.flatnonzero(~there)]
    if len(absent) > listed.allow_missing:
        hint = "; are the raw files in their official order?" if listed.by in _KEYS else ""
        raise OODError(f"{len(absent):,} of the {len(paths):,} images of the list {listed.name} are not among the "
                       f"{len(images):,} of the raw files: {', '.join(absent[:_NAMED])}"
                       f"{', ...' if len(absent) > _NAMED else ''}{hint}. Bring the complete set, or allow it in the "
                       f"dataset's row: lists: {{...: {{list: {listed.name}, allow_missing: {len(absent)}}}}}")
    for name in absent:
        images.left_out.add(ABSENT, name)
    chosen, wanted = numbers[there], labels[there]
    kept = [name for name, found in zip(paths, there, strict=True) if found]
    _same_labels(images, chosen, wanted, kept, listed)
    archive = (images.archive[0], images.archive[1][chosen]) if images.archive else None
    stated = bool((wanted >= 0).any())
    classes = images.classes or (tuple(str(i) for i in range(int(wanted.max()) + 1)) if stated else ())
    return replace(images, labels=wanted if stated else images.labels[chosen], names=kept, classes=classes,
                   archive=archive, blocks=lambda index: images.blocks(chosen[index]))


def _same_labels(images: Images, chosen: np.ndarray, wanted: np.ndarray, names: Sequence[str],
                 listed: ListUsed) -> None:
    own = images.labels[chosen]
    wrong = np.flatnonzero((own >= 0) & (wanted >= 0) & (own != wanted))
    if len(wrong):
        first = int(wrong[0])
        raise OODError(f"{len(wrong):,} images have another label in the raw files than in the list {listed.name}: "
                       f"{names[first]} is {own[first]}, {wanted[first]} in the list; the raw files are others")


def _numbers(images: Images, paths: Sequence[str], listed: ListUsed) -> Iterator[int]:
    """The number of each path's image, -1 where there is none."""
    if listed.by in ("folders", "name"):
        yield from _by_name(images.names, paths, listed)
        return
    number = {key: i for i, key in enumerate(_KEYS[listed.by](images))}
    stems = [PurePosixPath(path).with_suffix("").parts for path in paths]
    if listed.by == "cifar":
        label = _alphabetical({folder for *_, folder, _ in stems}, images, listed)
        keys = [f"{label[folder]}/{stem}" for *_, folder, stem in stems]
    else:
        keys = ["/".join(parts[-1 if listed.by == "svhn" else -2:]) for parts in stems]
    for key in keys:
        yield number.get(key, -1)


def _alphabetical(folders: set[str], images: Images, listed: ListUsed) -> dict[str, int]:
    """Class folders of a list -> labels of the raw files, which are in alphabetical order of the names.

    Raises:
        OODError: the list has another number of classes.
    """
    if len(folders) != len(images.classes):
        raise OODError(f"the list {listed.name} names {len(folders)} classes, the raw files have "
                       f"{len(images.classes)}; labels are in alphabetical order only where all are named")
    return {folder: label for label, folder in enumerate(sorted(folders))}


def _by_name(names: Sequence[str], paths: Sequence[str], listed: ListUsed) -> Iterator[int]:
    by_file: dict[str, list[int]] = defaultdict(list)
    for i in range(len(names)):
        by_file[names[i].rpartition("/")[2]].append(i)
    for path in paths:
        *folders, file = PurePosixPath(path).parts
        fitting = by_file.get(file, [])
        if listed.by == "folders":
            fitting = [i for i in fitting if _in_order(folders[1:], names[i].split("/")[:-1])]
        if len(fitting) > 1:
            raise OODError(f"{len(fitting)} images fit the path {path} of the list {listed.name}: "
                           f"{', '.join(names[i] for i in fitting[:_NAMED])}; leave one of them in the raw files")
        yield fitting[0] if fitting else -1


def _in_order(wanted: Sequence[str], folders: Sequence[str]) -> bool:
    """Whether ``wanted`` are among ``folders``, in this order."""
    rest = iter(folders)
    return all(folder in rest for folder in wanted)


def _mnist(images: Images) -> list[str]:
    """``test/8_8486``: by the file's name, and the number in it from 0."""
    files = [images.names[i].rpartition(":") for i in range(len(images))]
    return [f"{'train' if 'train' in file else 'test'}/{label}_{number}"
            for (file, _, number), label in zip(files, images.labels.tolist(), strict=True)]


def _svhn(images: Images) -> list[str]:
    """``022008_2``: the number from 1."""
    return [f"{number:06d}_{label}" for number, label in enumerate(images.labels.tolist(), 1)]


def _cifar(images: Images) -> list[str]:
    """``8/0281``: the label, and the number from 1 among the images of its class."""
    order = np.argsort(images.labels, kind="stable")
    sorted_labels = images.labels[order]
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order)) - np.searchsorted(sorted_labels, sorted_labels) + 1
    return [f"{label}/{number:04d}" for label, number in zip(images.labels.tolist(), rank.tolist(), strict=True)]


_KEYS = {"mnist": _mnist, "svhn": _svhn, "cifar": _cifar}
