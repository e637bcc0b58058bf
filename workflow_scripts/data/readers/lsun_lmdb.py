"""LSUN (classic): the LMDB folder of its publishers, whose values are encoded images (WebP), without labels.

The test set (``test_lmdb``: 10,000 images of all scene categories) is what the papers use. The zip archive is read as
it comes: its data file is unpacked into a temporary folder while images are read.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import lmdb
from annotated_types import Ge, MinLen

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.files import sha256
from workflow_scripts.core.sources import shown
from workflow_scripts.core.specs import ReaderSpec
from workflow_scripts.data.archives.unpack import members
from workflow_scripts.data.readers.lmdb_images import decoded
from workflow_scripts.data.reading import Images, raw_files, unlabelled
from workflow_scripts.data.tally import Tally

DATA = "data.mdb"


SPEC = ReaderSpec()


@dataclass(frozen=True)
class Options:
    files: str | Annotated[tuple[str, ...], MinLen(1)]
    """The LMDB folder, or the zip archive it comes in: a path below the data root, or a list of alternatives."""
    allow_corrupt: Annotated[int, Ge(0)] = 0
    """So many images that cannot be decoded are left out and named; more stop the run, which counts them."""


class _Lmdb:
    """The images of one LMDB data file, by number in the order of their keys."""

    def __init__(self, path: Path, folder: tempfile.TemporaryDirectory | None = None) -> None:
        self.folder = folder  # lives as long as what reads from it
        self.environment = lmdb.open(str(path), subdir=False, readonly=True, lock=False, create=False)
        size = (self.environment.info()["last_pgno"] + 1) * self.environment.stat()["psize"]
        if path.stat().st_size < size:  # touching what lacks would end the process
            self.environment.close()
            raise lmdb.CorruptedError(f"{size:,} bytes expected, found {path.stat().st_size:,}")
        with self.environment.begin() as transaction, transaction.cursor() as cursor:
            self.keys = list(cursor.iternext(keys=True, values=False))

    def read(self, i: int) -> bytes:
        with self.environment.begin() as transaction:
            return transaction.get(self.keys[i])


def _unpacked(archive: Path) -> tuple[Path, tempfile.TemporaryDirectory]:
    folder = tempfile.TemporaryDirectory(prefix="lsun")
    path = Path(folder.name) / DATA
    for member in members(archive):
        if os.path.basename(member.name) == DATA:
            with member.open() as content, open(path, "wb") as file:
                shutil.copyfileobj(content, file, 2**20)
            return path, folder
    raise OODError(f"{archive}: {DATA} expected in it; fetch it again")


def read(options: Options, root: Path | None) -> Images:
    """All images in the order of their keys; decoded when blocks are read, each of its own size.

    Raises:
        OODError: missing, truncated or not an LMDB; while blocks are read: more than ``allow_corrupt`` images that
            cannot be decoded.
    """
    found = raw_files(options.files, root)[0]
    path, folder = (found / DATA, None) if found.is_dir() else _unpacked(found)
    try:
        store = _Lmdb(path, folder)
    except (lmdb.Error, OSError) as error:
        raise OODError(f"{path}: not a whole LMDB ({error}); fetch LSUN's test_lmdb.zip again") from None
    if not store.keys:
        raise OODError(f"{path}: it holds no image; fetch LSUN's test_lmdb.zip again")
    names = [key.decode("utf-8", "backslashreplace") for key in store.keys]
    left_out, remarks = Tally(), Tally()
    source = path if found.is_dir() else found
    return Images(labels=unlabelled(len(names)), names=names, classes=(), sources={shown(source, root): sha256(source)},
                  blocks=decoded(lambda i: store.read(int(i)), names.__getitem__, left_out, remarks,
                                 options.allow_corrupt, str(found)), left_out=left_out, remarks=remarks)
