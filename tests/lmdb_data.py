"""Small sets of encoded images in every form, for tests of the archive."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from workflow_scripts.core import plugins
from workflow_scripts.data.archives.collection import Collection, collect
from workflow_scripts.data.archives.lmdb_store import Archive
from workflow_scripts.stages import pack_dataset as pack
from workflow_scripts.stages.sections.pack_dataset import PackDataset


def jpeg(value: int, size: tuple[int, int] = (40, 30), mode: str = "RGB", form: str = "JPEG") -> bytes:
    """An encoded image of noise that no other call makes."""
    pixels = np.random.default_rng(value).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, form)
    return buffer.getvalue()


MEMBERS = {f"n{c:02d}/{i:03d}.JPEG": jpeg(10 * c + i) for c in range(4) for i in range(9)}


def folder(path: Path, members: dict[str, bytes]) -> None:
    for name, content in members.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)


def tar(path: Path | io.BytesIO, members: dict[str, bytes], mode: str = "w") -> None:
    with tarfile.open(fileobj=path, mode=mode) if isinstance(path, io.BytesIO) else tarfile.open(path, mode) as archive:
        for name, content in reversed(members.items()):  # an order of its own
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def tar_of_tars(path: Path) -> None:
    inner = {}
    for name in sorted({name.split("/")[0] for name in MEMBERS}):
        buffer = io.BytesIO()
        tar(buffer, {n.split("/")[1]: c for n, c in MEMBERS.items() if n.startswith(name)})
        inner[f"{name}.tar"] = buffer.getvalue()
    tar(path, inner)


def zipped(path: Path, members: dict[str, bytes], method: int) -> None:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def collected(root: Path, **options: object) -> Collection:
    return collect(plugins.parse_options("data.readers", "lmdb_images", {"files": "x", **options}, "x"), root)


def packed(root: Path, **options: object) -> Archive:
    """The archive of ``root/x``, made by the stage's function."""
    config = PackDataset.of(dataset="x", split="train", options={"files": "x", **options}, raw=[])
    pack.pack_dataset(config, root / "x.lmdb", root, workers=0)
    return Archive(root / "x.lmdb")
