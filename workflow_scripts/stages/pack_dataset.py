"""Pack one split of a large set: raw files -> one LMDB file of encoded images.

Command: ``python -m workflow_scripts.stages.pack_dataset --config JSON --out ARCHIVE.lmdb [--workers N] [--data-root
FOLDER]
[--files FILE ...]``

An archive holds every image as it was published. A run that was killed is continued by the same command.
"""

from __future__ import annotations

import gzip
import lzma
import os
import shutil
import sys
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from workflow_scripts.core import plugins
from workflow_scripts.core.errors import OODError, stage
from workflow_scripts.core.section import stage_parser
from workflow_scripts.data.archives.collection import collect
from workflow_scripts.data.archives.packing import pack
from workflow_scripts.data.archives.trees import is_compressed, stream
from workflow_scripts.data.reading import raw_files
from workflow_scripts.stages.sections.pack_dataset import PackDataset


@contextmanager
def plain_copies(paths: list[Path], out: Path) -> Iterator[dict[Path, Path]]:
    """Uncompressed copies of compressed tar archives, beside ``out``, since no place in those can be reached directly.

    Raises:
        OODError: an archive that is not whole or compressed in another way.
    """
    copies: dict[Path, Path] = {}
    try:
        for i, path in enumerate(paths):
            if not is_compressed(path):
                continue
            out.parent.mkdir(parents=True, exist_ok=True)
            copies[path] = out.with_name(f".{out.name}.{i}.tar")
            try:
                with stream(path) as packed, open(copies[path], "wb") as file:
                    shutil.copyfileobj(packed, file, 2**20)
            except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, tarfile.TarError) as error:
                raise OODError(f"{path}: not a whole archive ({error}); fetch it again") from None
        yield copies
    finally:
        for copy in copies.values():
            copy.unlink(missing_ok=True)


def pack_dataset(section: PackDataset, out: Path, root: Path | None, workers: int,
                 files: Sequence[str] = ()) -> list[str]:
    """Write the archive of one split.

    Args:
        files: downloaded files, read in the place of the reader's option ``files``.

    Returns:
        Notes for the user: images left out, a set that is not complete.

    Raises:
        OODError: the dataset and what is wrong with it.
    """
    where = f"dataset '{section.dataset}' ({section.split})"
    read_from = {"files": [str(Path(name).absolute()) for name in files]} if files else {}
    options = plugins.parse_options("data.readers", section.reader, {**asdict(section.options), **read_from}, where)
    definition = section.model_dump(mode="json", include={"dataset", "split", "options", "raw"})
    try:
        with plain_copies(raw_files(options.files, root), out) as copies:
            collection = collect(options, root, copies)
            notes = pack(collection, out, definition, workers=workers, allow_corrupt=options.allow_corrupt)
    except OODError as error:
        raise OODError(f"{where}: {error}") from None
    return [f"{where}: {note}" for note in notes]


@stage
def main(argv: list[str] | None = None) -> None:
    """Entry point of the stage."""
    parser = stage_parser(__spec__, __doc__, PackDataset)
    parser.add_argument("--out", required=True, type=Path, help="LMDB file to write")
    parser.add_argument("--workers", type=int, default=1, help="processes that look at the files, beside the one that "
                        "writes (default: %(default)s)")
    parser.add_argument("--files", nargs="+", default=[], help="downloaded files, read instead of the option `files`")
    parser.add_argument("--data-root", type=Path, default=os.environ.get("OOD_DATA"), help="folder of the raw files")
    args = parser.parse_args(argv)
    for note in pack_dataset(args.config, args.out, args.data_root, args.workers, args.files):
        print(f"note: {note}", file=sys.stderr)


if __name__ == "__main__":
    main()
