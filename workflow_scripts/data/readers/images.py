"""Archives or folders of image files (JPEG, PNG, ...), with class folders or flat.

What is an image, what is left out and which links are followed: :mod:`workflow_scripts.data.archives.listing`. What
its pixels become: :mod:`workflow_scripts.data.decoding`. Nothing is unpacked to the disk: members are read one by one
into memory, so neither a path that leaves the folder nor a link, device or archive bomb of many files can do harm.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, MinLen

from workflow_scripts.core.specs import ReaderSpec
from workflow_scripts.data.readers import lmdb_images
from workflow_scripts.data.reading import Images

SPEC = ReaderSpec()


@dataclass(frozen=True)
class Options:
    files: str | Annotated[tuple[str, ...], MinLen(1)]
    """Tar (plain, gz, bz2, xz) or zip archives or folders: a path or glob below the data root, or a list of
    alternatives."""
    under: str = ""
    """Take only what lies in this folder of the archive or folder, e.g. `images`."""
    labels: Literal["none", "folders"] = "none"
    """`folders`: the first folder below `under` names the class, classes in sorted order; `none`: no labels."""
    order: tuple[str, ...] = ()
    """Names of the class folders in the order of the labels, e.g. of a network's outputs; left out: sorted."""
    allow_corrupt: Annotated[int, Ge(0)] = 0
    """So many images that cannot be decoded are left out and named; more stop the run, which counts them."""


def read(options: Options, root: Path | None) -> Images:
    """All images in sorted (class, folder, file) order; decoded when blocks are read, each of its own size.

    Raises:
        OODError: no source or no image in it; an archive that is not whole; class folders that are not those of
            ``order``; while blocks are read: more than ``allow_corrupt`` images that cannot be decoded, the first ones
            named.
    """
    images = lmdb_images.raw(lmdb_images.Options(
        files=options.files, under=options.under, labels=options.labels, allow_corrupt=options.allow_corrupt), root)
    return images.in_order(options.order, "order") if options.order else images
