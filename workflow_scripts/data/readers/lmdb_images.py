"""Large sets of encoded images: the LMDB file that the pack stage makes of them, or the raw files as they lie.

Raw files are folders, tar archives, tar archives of tar archives (ImageNet's training images) and zip archives, with
class folders or flat. Each image is decoded once, by several threads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, MinLen

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.specs import ReaderSpec
from workflow_scripts.data.archives.collection import Collection, collect
from workflow_scripts.data.archives.imagenet import class_list
from workflow_scripts.data.archives.lmdb_store import Archive
from workflow_scripts.data.decoding import decode
from workflow_scripts.data.reading import Images, raw_files, threads, unlabelled

_AHEAD = 8  # images per thread that may wait in memory


SPEC = ReaderSpec()


@dataclass(frozen=True)
class Options:
    files: str | Annotated[tuple[str, ...], MinLen(1)]
    """A `.lmdb` file of the pack stage, or folders or archives: a path or glob below the data root, or a list of
    alternatives."""
    under: str = ""
    """Take only what lies in this folder of the archive or folder, e.g. `images`."""
    labels: Literal["none", "folders"] = "none"
    """`folders`: the first folder below `under` names the class, classes in sorted order; `none`: no labels."""
    devkit: str | tuple[str, ...] = ()
    """ImageNet's development kit (archive or folder, below the data root), which names the classes of validation images
    that lie in no class folder."""
    annotations: str = ""
    """Text inside the source whose lines are `file<TAB>class`, as Tiny ImageNet's validation images have it."""
    only: str = ""
    """List of the classes to keep (a path below the repository), which fixes their order as well."""
    allow_corrupt: Annotated[int, Ge(0)] = 0
    """So many images that cannot be decoded are left out and named; more stop the run, which counts them."""


def read(options: Options, root: Path | None) -> Images:
    """All images in sorted (class, file) order; decoded when blocks are read, each of its own size.

    Raises:
        OODError: no source or no image in it; an archive that is not whole; classes of ``only`` that are not there;
            while blocks are read: more than ``allow_corrupt`` images that cannot be decoded, the first ones named.
    """
    paths = raw_files(options.files, root)
    if len(paths) == 1 and paths[0].suffix == ".lmdb":
        store: Archive | Collection = Archive(paths[0])
        numbers, labels, classes = _of_classes(store, options)
    else:
        store = collect(options, root)
        numbers, labels, classes = np.arange(len(store)), store.labels, store.classes
    notes = [f"left out while packing: {name} ({why})" for name, why in getattr(store, "corrupt", [])]
    every = store.names
    return Images(
        labels=labels, names=every if len(numbers) == len(every) else [every[i] for i in numbers.tolist()],
        classes=classes, sources=store.sources, notes=notes,
        archive=(paths[0], numbers) if isinstance(store, Archive) else None,
        blocks=decoded(lambda i: store.read(int(numbers[i])), lambda i: every[numbers[i]], options.allow_corrupt,
                       notes, ", ".join(str(path) for path in paths[:3])))


def _of_classes(store: Archive, options: Options) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Images of the wanted classes: numbers, labels, class names."""
    if options.labels == "none":
        return np.arange(len(store)), unlabelled(len(store)), ()
    if not options.only:
        return np.arange(len(store)), store.labels, store.classes
    wanted = class_list(options.only)
    absent = sorted(set(wanted) - set(store.classes))
    if absent:
        raise OODError(f"{store.path}: no image of {len(absent)} of the {len(wanted)} classes of {options.only}: "
                       f"{', '.join(absent[:5])}; it was packed with other classes")
    new = np.full(len(store.classes) + 1, -1)  # the last one: images without a label
    new[[store.classes.index(name) for name in wanted]] = np.arange(len(wanted))
    labels = new[store.labels]
    numbers = np.flatnonzero(labels >= 0)
    numbers = numbers[np.argsort(labels[numbers], kind="stable")]
    return numbers, labels[numbers].astype(np.int64), tuple(wanted)


def decoded(content: Callable[[int], bytes], name: Callable[[int], str], allow_corrupt: int, notes: list[str],
            where: str) -> Callable[[np.ndarray], Iterator[tuple[int, np.ndarray]]]:
    """``blocks`` of single images over encoded ones; a few are decoded ahead, PIL lets threads run side by side.

    Args:
        content: bytes of an image.
        name: its name, for errors.
        allow_corrupt: how many may be left out; ``notes`` then tells them.
        where: names the source in errors.
    """
    def one(i: int) -> np.ndarray | str:
        try:
            return decode(content(i))
        except ValueError as error:
            return f"{name(i)} ({error})"

    def blocks(index: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        corrupt: list[str] = []
        waiting: deque[tuple[int, Future]] = deque()
        count = threads()
        with ThreadPoolExecutor(count) as pool:
            for position in range(len(index) + count * _AHEAD):
                if position < len(index):
                    waiting.append((position, pool.submit(one, int(index[position]))))
                if position < count * _AHEAD or not waiting:
                    continue
                at, future = waiting.popleft()
                image = future.result()
                if isinstance(image, str):
                    corrupt.append(image)
                elif len(corrupt) <= allow_corrupt:  # beyond that, only count on
                    yield at, image[None]
        if len(corrupt) > allow_corrupt:
            raise OODError(f"{len(corrupt)} image(s) cannot be decoded: {'; '.join(corrupt[:5])}"
                           f"{'; ...' if len(corrupt) > 5 else ''}. Fetch {where} again, or set allow_corrupt: "
                           f"{len(corrupt)} in the dataset's options to leave them out")
        if corrupt:
            notes.append(f"left out {len(corrupt)} image(s) that cannot be decoded: {'; '.join(corrupt)}")

    return blocks
