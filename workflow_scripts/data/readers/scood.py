"""SC-OOD's image lists: which images of a test set are semantically out-of-distribution for a CIFAR benchmark.

A line of a list is ``relative_path {Python dictionary}`` with the integers ``label`` (class in the set's own numbering)
and ``sc_label``: -1 where the image is out-of-distribution, otherwise it belongs to an ID class (goe 2c). The reference
protocol counts such ID-like images as in-distribution.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, MinLen

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.files import decoded as in_utf8
from workflow_scripts.core.files import sha256
from workflow_scripts.core.sources import shown
from workflow_scripts.core.specs import ReaderSpec
from workflow_scripts.data.archives.collection import Collection, collect
from workflow_scripts.data.readers.lmdb_images import Options as Everything
from workflow_scripts.data.readers.lmdb_images import decoded
from workflow_scripts.data.reading import Images, raw_files
from workflow_scripts.data.tally import Tally

SPEC = ReaderSpec(beside=("imglist",), defects={
    "goe.2c": ("the code of 2024 squashes test images to 32x32; that of 2022 resizes the shorter side and cuts",
               "test sets: the same sets squashed, in a group of their own (`far+2c`)"),
    "goe.2g-1": ("test sets are always filtered with the CIFAR-100 benchmark's lists",
                 "test sets: the same sets by the other benchmark's lists, in a group of their own (`far+2g-1`)")})


@dataclass(frozen=True)
class Options:
    files: str | Annotated[tuple[str, ...], MinLen(1)]
    """Folder `images` that the lists' paths are relative to, or the whole benchmark as a folder or archive: a path
    below the data root, or a list of alternatives."""
    benchmark: Literal["cifar10", "cifar100"]
    """The ID set whose semantics decide; folder `benchmark_...` of the lists."""
    set: str
    """Which list: `texture`, `svhn`, `cifar100`, `tin`, `lsun`, `places365`, ... for `test_{set}.txt`."""
    lists: str = ""
    """Folder of the lists (`imglist`), a path below the data root; left out: `imglist` beside `images`."""
    part: Literal["ood", "id_like", "all"] = "ood"
    """`ood`: sc_label -1; `id_like`: the others; `all`: both."""
    labels: Literal["none", "label", "sc_label"] = "none"
    """Labels to keep: the set's own or the ID class that an image belongs to."""
    allow_corrupt: Annotated[int, Ge(0)] = 0
    """So many images that cannot be decoded are left out and named; more stop the run, which counts them."""


def parse(text: str, where: str) -> list[tuple[str, dict[str, Any]]]:
    """(path, dictionary) of each line that is not empty; dictionaries are literals, nothing is run.

    Raises:
        OODError: a line without the two, naming file and line.
    """
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        path, _, rest = line.strip().partition(" ")
        try:
            values = ast.literal_eval(rest.strip())
            if isinstance(values["sc_label"], int) and isinstance(values["label"], int):
                rows.append((path, values))
                continue
        except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError):
            pass
        raise OODError(f"{where}:{number}: `relative_path {{dictionary}}` with integers label and sc_label expected, "
                       f"found {line[:120]!r}")
    if not rows:
        raise OODError(f"{where}: no line in the list; take SC-OOD's lists again")
    return rows


def _list(options: Options, root: Path | None, collection: Collection, source: Path) -> tuple[str, str, str]:
    """Text of the list, its name in results, its sha256 (or that of the archive it lies in)."""
    name = f"benchmark_{options.benchmark}/test_{options.set}.txt"
    candidates = [raw_files(options.lists, root)[0] / name] if options.lists else [
        source / "imglist" / name, source / "data" / "imglist" / name,
        *(source.parent / beside / name for beside in SPEC.beside)]
    for path in candidates:
        if path.is_file():
            return in_utf8(path.read_bytes(), path), shown(path, root), sha256(path)
    inside = [i for i, text in enumerate(collection.names) if text.endswith(f"imglist/{name}")]
    if inside:
        text = in_utf8(collection.read(inside[0]), collection.path(inside[0]))
        return text, f"{shown(source, root)}: imglist/{name}", collection.sources[shown(source, root)]
    there = sorted({p.stem.removeprefix("test_") for c in candidates for p in c.parent.glob("test_*.txt")})
    raise OODError(f"imglist/{name} is neither in nor beside {source}; set `lists` to the folder imglist of SC-OOD"
                   f"{'; lists there: ' + ', '.join(there) if there else ''}")


def read(options: Options, root: Path | None) -> Images:
    """The images of one list and part, in the list's order; decoded when blocks are read.

    Raises:
        OODError: no images or list, a line that is none, an image that is listed but not there, an empty part.
    """
    source = raw_files(options.files, root)[0]
    everything = collect(Everything(files=options.files), root, also=".txt")
    text, list_name, digest = _list(options, root, everything, source)
    rows = [row for row in parse(text, list_name)
            if options.part == "all" or (row[1]["sc_label"] == -1) == (options.part == "ood")]
    if not rows:
        raise OODError(f"{list_name}: no image of part {options.part}; its other part has all of them")
    place = _places(everything.names, source)
    absent = [path for path, _ in rows if path not in place]
    if absent:
        raise OODError(f"{source}: {len(absent):,} of the {len(rows):,} images of {list_name} are not there, the first "
                       f"is {absent[0]}; paths are relative to the folder images of SC-OOD")
    numbers = np.array([place[path] for path, _ in rows], np.int64)
    kept = options.labels != "none"
    labels = np.array([values[options.labels] if kept else -1 for _, values in rows], np.int64)
    left_out, remarks = Tally(), Tally()  # files that no list names are left out by it, not by us
    forwards = (lambda index: everything.forwards(numbers[index])) if everything.compressed else None
    return Images(labels=labels, names=[path for path, _ in rows],
                  classes=tuple(str(i) for i in range(int(labels.max()) + 1)),
                  sources={list_name: digest, **everything.sources}, left_out=left_out, remarks=remarks,
                  blocks=decoded(lambda i: everything.read(int(numbers[i])), lambda i: rows[i][0], left_out, remarks,
                                 options.allow_corrupt, str(source), forwards))


def _places(names: list[str], source: Path) -> dict[str, int]:
    """Path below the benchmark's folder ``images`` -> number."""
    prefix = ""
    if source.name != "images":
        inside = next((f"/{name}" for name in names if "/images/" in f"/{name}"), "")
        prefix = inside[1:inside.find("/images/") + len("/images/")]
    return {name.removeprefix(prefix): i for i, name in enumerate(names)}
