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
from workflow_scripts.data.archives.collection import collect
from workflow_scripts.data.archives.imagenet import class_list
from workflow_scripts.data.archives.lmdb_store import Archive
from workflow_scripts.data.decoding import Decoded, decode
from workflow_scripts.data.reading import Images, raw_files, threads, unlabelled
from workflow_scripts.data.tally import Tally

_AHEAD = 8  # images per thread that may wait in memory
CORRUPT = "images that cannot be decoded"


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
    """All images in sorted (class, folder, file) order; decoded when blocks are read, each of its own size.

    Raises:
        OODError: no source or no image in it; an archive that is not whole; classes of ``only`` that are not there;
            while blocks are read: more than ``allow_corrupt`` images that cannot be decoded, the first ones named.
    """
    paths = raw_files(options.files, root)
    if len(paths) != 1 or paths[0].suffix != ".lmdb":
        return raw(options, root)
    store = Archive(paths[0])
    numbers, labels, classes = _of_classes(store, options)
    every = store.names
    left_out, remarks = Tally(store.left_out), Tally()
    for name, why in store.corrupt:
        left_out.add(CORRUPT, f"{name} ({why})")
    return Images(labels=labels, names=every if len(numbers) == len(every) else [every[i] for i in numbers.tolist()],
                  classes=classes, sources=store.sources, left_out=left_out, remarks=remarks,
                  named="stated" if options.only else "folders",
                  archive=(paths[0], numbers),
                  blocks=decoded(lambda i: store.read(int(numbers[i])), lambda i: every[numbers[i]], left_out, remarks,
                                 options.allow_corrupt, str(paths[0])))


def raw(options: Options, root: Path | None) -> Images:
    """The images of folders and archives as they lie.

    Raises:
        OODError: as :func:`read`.
    """
    store = collect(options, root)
    remarks = Tally()
    return Images(labels=store.labels, names=store.names, classes=store.classes, sources=store.sources,
                  left_out=store.left_out, remarks=remarks,
                  named="stated" if options.only else "folders",
                  blocks=decoded(store.read, store.names.__getitem__, store.left_out, remarks, options.allow_corrupt,
                                 ", ".join(str(path) for path in store.paths[:3]),
                                 store.forwards if store.compressed else None))


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


def decoded(content: Callable[[int], bytes], name: Callable[[int], str], left_out: Tally, remarks: Tally,
            allow_corrupt: int, where: str, forwards: Callable[[np.ndarray], np.ndarray] | None = None,
            ) -> Callable[[np.ndarray], Iterator[tuple[int, np.ndarray]]]:
    """``blocks`` of single images over encoded ones; a few are decoded ahead, PIL lets threads run side by side.

    Args:
        content: bytes of an image.
        name: its name, for errors.
        left_out, remarks: are told what happens to the images.
        allow_corrupt: how many may be left out.
        where: names the source in errors.
        forwards: of a stream, in which order (positions in an index) it is read, by one thread; none: in any.
    """
    def one(i: int, encoded: bytes | None) -> Decoded | str:
        try:
            return decode(content(i) if encoded is None else encoded)
        except ValueError as error:
            return f"{name(i)} ({error})"
        except OODError as error:
            raise OODError(f"{where}: {name(i)}: {error}") from None

    def blocks(index: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        corrupt: list[str] = []
        waiting: deque[tuple[int, Future]] = deque()
        count = threads()
        positions = range(len(index)) if forwards is None else forwards(index).tolist()
        with ThreadPoolExecutor(count) as pool:
            for number in range(len(index) + count * _AHEAD):
                if number < len(index):
                    position = positions[number]
                    i = int(index[position])
                    waiting.append((position, pool.submit(one, i, None if forwards is None else content(i))))
                if number < count * _AHEAD or not waiting:
                    continue
                at, future = waiting.popleft()
                image = future.result()
                if isinstance(image, str):
                    corrupt.append(image)
                elif len(corrupt) <= allow_corrupt:  # beyond that, only count on
                    for remark, times in image.remarks:
                        remarks.add(remark, name(int(index[at])), times)
                    yield at, image.pixels[None]
        if len(corrupt) > allow_corrupt:
            raise OODError(f"{len(corrupt)} image(s) cannot be decoded: {'; '.join(corrupt[:5])}"
                           f"{'; ...' if len(corrupt) > 5 else ''}. Fetch {where} again, or set allow_corrupt: "
                           f"{len(corrupt)} in the dataset's options to leave them out")
        for which in corrupt:
            left_out.add(CORRUPT, which)

    return blocks
