"""The table of datasets (``config/datasets.yaml``): checked rows, and what of their raw files is there.

Imported while the Snakefile is parsed, so it needs pydantic, yaml and the standard library only. ``load`` checks every
row against its reader's options without importing the reader.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError, model_validator

from workflow_scripts.config import image_lists
from workflow_scripts.core import plugins, sources
from workflow_scripts.core.errors import OODError, unknown
from workflow_scripts.core.fingerprint import Fingerprints
from workflow_scripts.core.listed import By, ListUsed
from workflow_scripts.core.yaml_files import read_yaml

REPOSITORY = Path(__file__).resolve().parents[2]
SplitName = Literal["train", "val", "test"]
Geometry = Annotated[str, StringConstraints(
    pattern=r"^(native|(squash|crop|short|resize[1-9][0-9]*crop)[1-9][0-9]*(bicubic)?)$")]
PACKED = "lmdb_images"  # the reader whose raw files are packed
# Options that name raw files beside `files`, and what is lost without them.
_COMPANIONS = {"devkit": " (it names the classes of images that lie in no class folder)",
               "exclude": " (the list of images to leave out)", "lists": " (the lists of the images)",
               "label_file": " (the labels of the images)"}
_COMPRESSED = {".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz"}
_NAME = TypeAdapter(Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_]*$")])


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ignored_types=(cached_property,),
                              use_attribute_docstrings=True)


class Sample(_Strict):
    """A random subset of every split."""

    n: Annotated[int, Field(gt=0)]
    """Images to take; a smaller set is taken whole."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the draw."""


class Listed(_Strict):
    """A published list that chooses and orders the images of a split."""

    list: str
    """Name of the list, a row of `config/imglists.yaml`."""
    by: By = "folders"
    """How its paths find images: `folders`, by file name and the folders above it; `name`, by file name alone; by their
    number in the official files of `mnist`, `svhn` and `cifar` (`workflow_scripts/data/image_list.py`)."""
    allow_missing: Annotated[int, Field(ge=0)] = 0
    """So many of its images may be missing; they are named and counted, and every table says so. More stop the run."""

    def used(self) -> ListUsed:
        """As the prepare stage takes it."""
        row = image_lists.read().lists[self.list]
        return ListUsed(name=self.list, count=row.count, paths=row.paths, lines=row.lines, by=self.by,
                        allow_missing=self.allow_missing)


class Dataset(_Strict):
    """One row of the table: a dataset as it is used here."""

    label: str = ""
    """Name in tables and figures; left out: the row's key."""
    reader: str
    """Module in `workflow_scripts/data/readers`, one per format."""
    options: dict[str, Any] = {}
    """Options of the reader that all splits share."""
    splits: dict[SplitName, dict[str, Any] | None]
    """Splits by name; each with its own options of the reader (over the shared ones)."""
    classes: Annotated[int, Field(ge=0)] | list[str] = 0
    """Classes of a labelled set: their names in the order of the labels, or their number; 0: labels are not used."""
    geometry: Geometry = "native"
    """How images reach the stored size (PIL bilinear): `native` as they are; `squashN` to N x N whatever their shape;
    `cropN` shorter side to N, then the central N x N; `shortN` shorter side to N and the long side kept, so that
    training takes random windows of it (evaluation the central N x N); `resizeMcropN` shorter side to M, then the
    central N x N. A name that ends in `bicubic` resamples so."""
    pixels: Literal["stored", "decoded"] = "stored"
    """`decoded`: nothing is stored; images are decoded from their LMDB file whenever they are read, for sets that no
    disk holds at 224x224 and for random resized crops of the whole image (reader `lmdb_images`)."""
    keep: str = ""
    """File (a path below the repository) with the names of the images to keep, one a line, such as
    `config/lists/x.txt`; `python -m workflow_scripts.publish_list` writes one from a store."""
    archive: str = ""
    """Row whose LMDB file this one is read from (reader `lmdb_images`, the same raw files); left out: its own."""
    lists: dict[SplitName, Listed] = {}
    """Splits whose images a published list chooses and orders, out of all that the reader finds; `counts` of them are
    the list's."""
    instead: Dataset | None = None
    """Keys of the row in other words (`reader`, `options`, `splits`, `lists`), for another form of the same raw files.
    It counts where that is below the data root and the first is not."""
    limit_per_class: Annotated[int, Field(gt=0)] | None = None
    """Keep the first so many images of each class, in file order."""
    sample: Sample | None = None
    """Then draw a random subset (where there is no `keep`)."""
    hold_out: Annotated[int, Field(gt=0)] | None = None
    """So many images of `train`, evenly spread over it, are the split `val` instead: outliers to choose recipes by."""
    counts: dict[SplitName, Annotated[int, Field(gt=0)]] = {}
    """Images of the complete set, after `limit_per_class` and `sample`, of train with or without those held out.
    Another number is refused when the set is prepared (unless `limit.images` cuts it): a part of a set is a row of its
    own, whose name and label say so."""
    of: str = ""
    """Another row, whose keys these are put over (below `options` and `counts` one by one); it needs a `label`."""
    about: str = ""
    """What it is and what it is used for."""
    licence: str = ""
    """Terms of use."""
    citation: str = ""
    """Whom to cite."""
    url: str | list[str] = []
    """Where a user gets it."""
    name: str = ""
    """The row's key; set when the table is read."""

    @model_validator(mode="before")
    @classmethod
    def _held_out(cls, row: Any) -> Any:
        """`val` is read as `train` is."""
        if isinstance(row, Mapping) and row.get("hold_out") and isinstance(row.get("splits"), Mapping):
            if "train" not in row["splits"] or "val" in row["splits"]:
                raise ValueError("hold_out makes the split val out of train; the row needs train and no val")
            return {**row, "splits": {**row["splits"], "val": row["splits"]["train"]}}
        return row

    @model_validator(mode="after")
    def _decodable(self) -> Dataset:
        if self.pixels == "decoded" and (self.reader != PACKED or self.geometry.startswith(("native", "short"))):
            raise ValueError(f"pixels: decoded goes with the reader {PACKED} and a geometry of fixed size")
        return self

    def options_of(self, split: str) -> dict[str, Any]:
        """The reader's options of a split."""
        return {**self.options, **(self.splits[cast(SplitName, split)] or {})}

    def list_of(self, split: str) -> Listed | None:
        """The list that chooses a split's images; none where no list does."""
        return self.lists.get(cast(SplitName, split))

    def section(self, split: str, root: str | os.PathLike | None, taken: Fingerprints | None = None) -> dict[str, Any]:
        """All that the split's store depends on; plain JSON. Documentation is no part of it.

        Args:
            taken: fingerprints of raw files that are known already.
        """
        return {**self.definition(split), "raw": fingerprint(self, split, root, taken)}

    def definition(self, split: str) -> dict[str, Any]:
        """All of it but its raw files."""
        return {
            "dataset": self.name, "split": split, "reader": self.reader, "options": self.options_of(split),
            "classes": self.classes, "geometry": self.geometry, "limit_per_class": self.limit_per_class,
            "sample": self.sample.model_dump() if self.sample else None,
            "count": self.counts.get(cast(SplitName, split)),
            **({"keep": _list(self.keep)} if self.keep else {}),
            **({"listed": listed.used().model_dump()} if (listed := self.list_of(split)) else {}),
            **({"hold_out": self.hold_out} if self.hold_out and split != "test" else {}),
            **({"only": _list(only)} if (only := self.options_of(split).get("only")) else {}),
            **({"pixels": self.pixels} if self.pixels != "stored" else {}),
        }


def _list(name: str) -> list[str]:
    """A list of images in a section: its name and the hash of its content."""
    path = REPOSITORY / name
    return [name, hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""]


def load(path: str | os.PathLike, extra: Sequence[Mapping[str, Any]] = ()) -> dict[str, Dataset]:
    """Read and check the table.

    Args:
        path: the YAML file, a mapping from name to row.
        extra: further tables of the same form; their rows replace rows of the same name, whose counts hold on.

    Raises:
        OODError: one line per problem: place, what was found, what is allowed, the nearest match.
    """
    path = Path(path)
    table = read_yaml(path, "table of datasets")
    datasets, problems = {}, []
    given: dict[str, Any] = {}  # rows as they are written, those they are `of` below them
    for where, rows in ((path.name, table), *(("datasets", more) for more in extra)):
        if not isinstance(rows, Mapping):
            raise OODError(f"{where}: a mapping from dataset names to rows expected, found {type(rows).__name__}")
        for name, row in rows.items():
            try:
                given[name] = _complete(f"{where}: {name}", name, row, given)
                datasets[name] = _row(f"{where}: {name}", name, given[name])
            except OODError as error:
                problems.append(str(error))
    if problems:
        raise OODError("\n".join(problems))
    return datasets


def _complete(where: str, name: Any, row: Any, given: Mapping[str, Any]) -> Any:
    """A row with the keys of the row it is `of`, and with the counts of the one it replaces.

    Raises:
        OODError: it is of no row, or has no label; it states other counts than the row it replaces.
    """
    if not isinstance(row, Mapping):
        return row
    base, before = row.get("of"), given.get(name)
    if base is not None:
        if base not in given:
            raise unknown(f"{where}.of", base, given)
        if not row.get("label"):
            raise OODError(f"{where}.label: a row that is of '{base}' needs a name of its own in tables and figures")
        over = given[base]
        packed = {"archive": over.get("archive") or base} if over["reader"] == PACKED and "splits" not in row else {}
        below = {key: {**(over.get(key) or {}), **(row.get(key) or {})} for key in ("options", "counts")}
        row = {**over, **packed, **row, **below}
    if isinstance(before, Mapping) and isinstance(row.get("splits"), Mapping):
        stated = {split: count for split, count in (before.get("counts") or {}).items() if split in row["splits"]}
        own = row.get("counts") or {}
        for split in stated.keys() & own.keys():
            if own[split] != stated[split]:
                raise OODError(f"{where}.counts.{split}: {own[split]:,} images, where the table's row of this name has "
                               f"{stated[split]:,}; another set needs another name, e.g. {name}_part: {{of: {name}, "
                               f"label: ..., counts: {{{split}: {own[split]}}}}}")
        row = {**row, "counts": {**stated, **own}}
    return row


def archive_row(row: Dataset, datasets: Mapping[str, Dataset]) -> Dataset:
    """The row whose LMDB file a row is read from: itself, or the one its `archive` names.

    Raises:
        OODError: there is no such row, or it reads other files.
    """
    if not row.archive:
        return row
    if row.archive not in datasets:
        raise unknown(f"dataset '{row.name}', key archive", row.archive, datasets)
    other = datasets[row.archive]
    if other.archive or {row.reader, other.reader} != {PACKED} or any(
            split not in other.splits or files(row, split) != files(other, split) for split in row.splits):
        raise OODError(f"dataset '{row.name}', key archive: '{row.archive}' must be a row with an archive of its own: "
                       f"reader {PACKED}, the same splits and the same `files`")
    return other


def _row(where: str, name: Any, row: Any) -> Dataset:
    try:
        _NAME.validate_python(name)
    except ValidationError:
        raise OODError(f"{where}: a dataset's name is made of a-z, 0-9 and _ (it becomes part of file names)") from None
    if not isinstance(row, Mapping) or "name" in row:
        raise OODError(f"{where}: a row is a mapping with reader, splits, ... (its name is its key)")
    allowed = [key for key in Dataset.model_fields if key != "name"]
    other = row.get("instead")
    if other is not None:
        if not isinstance(other, Mapping):
            raise OODError(f"{where}.instead: a mapping of keys of the row expected, found {type(other).__name__}")
        first = {key: value for key, value in row.items() if key not in ("instead", "options", "lists")}
        row = {**row, "instead": _row(f"{where}.instead", name, {**first, **other})}
    try:
        dataset = Dataset.model_validate({**_counted(where, row), "name": name})
    except ValidationError as error:
        lines = plugins.explain(error, where, {(): allowed, ("sample",): list(Sample.model_fields)})
        raise OODError("\n".join(lines)) from None
    if not dataset.splits:
        raise OODError(f"{where}.splits: at least one of train, val, test expected")
    for split in dataset.splits:
        plugins.parse_options("data.readers", dataset.reader, dataset.options_of(split), f"{where}.splits.{split}")
    return dataset


def _counted(where: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with the counts of the lists that it names.

    Raises:
        OODError: there is no such list, or the row states another count.
    """
    counts = dict(row.get("counts") or {})
    for split, listed in (row.get("lists") or {}).items():
        if isinstance(listed, Mapping) and "list" in listed:
            count = image_lists.read().get(listed["list"], f"{where}.lists.{split}.list").count
            if counts.setdefault(split, count) != count:
                raise OODError(f"{where}.counts.{split}: {counts[split]:,} images, the list {listed['list']} has "
                               f"{count:,}")
    return {**row, "counts": counts}


def at_hand(datasets: Mapping[str, Dataset], root: str | os.PathLike | None) -> dict[str, Dataset]:
    """The rows in the form in which their raw files are below the data root: the first, or that of `instead`."""
    def form(row: Dataset) -> Dataset:
        other = row.instead
        return other if other and any(missing(row, split, root) for split in row.splits) and not any(
            missing(other, split, root) for split in other.splits) else row

    return {name: form(row) for name, row in datasets.items()}


def files(dataset: Dataset, split: str) -> tuple[str, ...]:
    """Patterns of the split's raw files; none for sets that are bundled or made."""
    options = plugins.parse_options("data.readers", dataset.reader, dataset.options_of(split), dataset.name)
    return sources.alternatives(getattr(options, "files", ()))


def readers(datasets: Mapping[str, Dataset], file: str) -> list[str]:
    """Names of the rows that read a raw file of this name, among their `files` or beside them."""
    return [name for name, row in datasets.items() if any(
        PurePath(pattern).name == file for split in row.splits for pattern in _named(row, split))]


def _named(dataset: Dataset, split: str) -> list[str]:
    """Patterns of all raw files that a split may read."""
    options = plugins.parse_options("data.readers", dataset.reader, dataset.options_of(split), dataset.name)
    return [pattern for option in ("files", *_COMPANIONS)
            for pattern in sources.alternatives(getattr(options, option, None) or ())]


def fingerprint(dataset: Dataset, split: str, root: str | os.PathLike | None,
                taken: Fingerprints | None = None) -> list[list] | None:
    """What identifies the split's raw files: see :mod:`workflow_scripts.core.fingerprint`, one per file or folder.

    Returns:
        An empty list for bundled sets and noise; ``None`` when the raw files are not there.
    """
    patterns = files(dataset, split)
    if not patterns:
        return []
    beside = [path for names in companions(dataset, split, root).values() for path in sources.locate(names, root)]
    found = sources.locate(patterns, root)
    near = {path.parent / name for path in found for name in plugins.spec("data.readers", dataset.reader).beside}
    beside += sorted(path for path in near if path.exists())
    return (taken or Fingerprints()).of([*found, *beside], root) if found else None


def companions(dataset: Dataset, split: str, root: str | os.PathLike | None) -> dict[str, tuple[str, ...]]:
    """Raw files that a split needs beside its `files`: option -> patterns.

    ImageNet's development kit counts only where the images are, or are to be brought as, an archive or a flat folder.
    """
    options = plugins.parse_options("data.readers", dataset.reader, dataset.options_of(split), dataset.name)
    needed = {name: sources.alternatives(getattr(options, name)) for name in _COMPANIONS if getattr(options, name, ())}
    found = sources.locate(files(dataset, split), root)
    if "devkit" in needed and (options.labels == "none" or found and (
            found[0].suffix == ".lmdb" or any(map(_has_folders, found)))):
        del needed["devkit"]
    return needed


def _has_folders(path: Path) -> bool:
    return path.is_dir() and any(entry.is_dir() for entry in os.scandir(path))


def to_pack(dataset: Dataset, split: str, root: str | os.PathLike | None, limited: bool) -> bool:
    """Whether the split is read from an LMDB file that is yet to be made of its raw files.

    Args:
        limited: the run takes a few images only, which are read from the raw files; compressed ones cannot be.
    """
    if dataset.reader != PACKED:
        return False
    found = sources.locate(files(dataset, split), root)
    if len(found) == 1 and found[0].suffix == ".lmdb":
        return False
    return not limited or any(PurePath(path).suffix in _COMPRESSED for path in found or files(dataset, split))


def missing(dataset: Dataset, split: str, root: str | os.PathLike | None) -> list[str]:
    """One message for the split's raw files that are not there: dataset, files expected, where to get them."""
    patterns = files(dataset, split)
    if not patterns or sources.locate(patterns, root):
        return []
    return [_expected(dataset, split, root, patterns)]


def lacking(dataset: Dataset, split: str, root: str | os.PathLike | None) -> list[str]:
    """One message for each raw file that the split needs beside its `files` and that is not there."""
    return [_expected(dataset, split, root, patterns, _COMPANIONS[option])
            for option, patterns in companions(dataset, split, root).items() if not sources.locate(patterns, root)]


def _expected(dataset: Dataset, split: str, root: str | os.PathLike | None, patterns: Sequence[str],
              why: str = "") -> str:
    where = f"the data root {root}" if root is not None else "the data root, which is not set"
    urls = [dataset.url] if isinstance(dataset.url, str) else dataset.url
    return (f"dataset '{dataset.name}' ({split}): {' or '.join(patterns)} expected below {where}{why}"
            f"{'; get it from ' + ' or '.join(urls) if urls else ''}; the config key data_root or the environment "
            "variable OOD_DATA names the data root")
