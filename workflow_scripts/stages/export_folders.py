"""Export a store as class folders of PNG images (DFB's form of CIFAR): store -> tar archive or folder.

Command: ``python -m workflow_scripts.stages.export_folders --store results/V/data/cifar10.train.h5 --out
cifar10.train.tar``

``{class}/{number}.png``; images without labels lie in one folder ``unlabelled``. PNG loses nothing. An ``--out`` that
does not end in ``.tar`` is made as a folder. The same store gives the same bytes.
"""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from workflow_scripts.core.errors import OODError, command, stage
from workflow_scripts.core.files import atomic, put_in_place
from workflow_scripts.data.images.store import streamed

BLOCK = 1000  # images in memory at a time


def files(store: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of each image of a store, in its order.

    Raises:
        OODError: no whole store, network inputs instead of images, a class name that is no folder name.
    """
    with streamed(store) as content:
        for name in content.classes:
            if name in (".", "..") or "/" in name or "\0" in name:
                raise OODError(f"{store}: class {name!r} cannot be the name of a folder; set `classes` of the row")
        labels = content.labels.tolist()
        for start in range(0, len(labels), BLOCK):
            for i, image in enumerate(np.asarray(content.photos()[start:start + BLOCK]), start):
                folder = content.classes[labels[i]] if content.classes else "unlabelled"
                encoded = io.BytesIO()
                Image.fromarray(image).save(encoded, "PNG", compress_level=1)
                yield f"{folder}/{i:06d}.png", encoded.getvalue()


def export(store: Path, out: Path) -> None:
    """Write the tar archive or folder, whole or not at all.

    Raises:
        OODError: a folder of that name exists, or as :func:`files`.
    """
    if out.suffix == ".tar":
        with atomic(out) as partial, tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as archive:
            for name, content in files(store):
                info = tarfile.TarInfo(name)
                info.size, info.mode = len(content), 0o644
                archive.addfile(info, io.BytesIO(content))
        return
    if out.exists():
        raise OODError(f"{out}: exists already; remove it to export {store} anew")
    unfinished = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        for name, content in files(store):
            path = unfinished / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        put_in_place(unfinished, out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@stage
def main(argv: list[str] | None = None) -> None:
    """Entry point of the stage."""
    parser = command(__spec__, __doc__)
    parser.add_argument("--store", required=True, type=Path, help="image store to export")
    parser.add_argument("--out", required=True, type=Path, help="tar archive (.tar) or folder to write")
    args = parser.parse_args(argv)
    export(args.store, args.out)


if __name__ == "__main__":
    main()
