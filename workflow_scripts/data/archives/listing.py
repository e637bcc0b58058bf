"""Which files of a source are images, by one rule for folders, tar, tar of tars and zip archives.

:func:`listed` walks a source as a tree (:mod:`workflow_scripts.data.archives.trees`). An image is a file with one of
:data:`SUFFIXES`. What is left out is counted: hidden files and folders (their names begin with a dot), folders that
systems and programs make (``trees.SYSTEM``), other suffixes, links to nothing, links back to a folder they lie in, what
is no regular file, and members of an archive that a later member of the same name replaces. Links to files and folders
are followed: of a folder, wherever they lead; of an archive, to what lies inside it and never out of it.
"""

from __future__ import annotations

import re
from dataclasses import replace
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import Any

from workflow_scripts.core.errors import OODError
from workflow_scripts.data.archives.trees import Folder, Found, Members, reason, tree_of
from workflow_scripts.data.tally import Tally

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".webp", ".tif", ".tiff"}
_SUFFIX = re.compile(r"\.[a-z][a-z0-9_+~-]{0,7}")  # .0001, .0002, ... are none
MEMBER_CAP = 256 * 2**20  # bytes; no single image file is as large


def listed(path: Path, under: str, left_out: Tally, also: str = "", text: str = "") -> tuple[list[Found], Found | None]:
    """The images of a folder or archive, in no order that means anything; and one file by its name, if it is there.

    Args:
        path: the folder or archive.
        under: only what lies in this folder of it, whatever its name; no other part is looked at or counted.
        left_out: counts what is left out.
        also: files of this suffix are listed as well.
        text: name of that one file.

    Raises:
        OODError: an archive that is not whole or has a member outside of it, a folder that cannot be listed.
    """
    tree = tree_of(path, left_out)
    found: list[Found] = []
    try:
        *above, here = tree.way(PurePosixPath(under).parts)
        if here is not None:
            _walk(tree, here, under, [tree.identity(folder) for folder in above], found, left_out, also, text)
        named = None
        if text and (folder := tree.way(PurePosixPath(text).parts[:-1])[-1]) is not None:
            last = PurePosixPath(text).name
            named = next((entry for name, kind, entry in tree.entries(folder) if (name, kind) == (last, "file")), None)
            named = named and replace(named, name=text)
    except OSError as error:
        raise OODError(f"{error.filename or path}: cannot be listed ({error.strerror}); give the user who runs this "
                       "the right to read it, or take it out of the set") from None
    return found, named


def _walk(tree: Folder | Members, here: Any, below: str, trail: list[Any], found: list[Found],
          left_out: Tally, also: str, text: str) -> None:
    """Collect the images of a folder and of those in it. ``trail``: the folders that ``here`` lies in."""
    trail = [*trail, tree.identity(here)]
    for child, kind, entry in sorted(tree.entries(here), key=itemgetter(0)):
        name = f"{below}/{child}" if below else child
        if why := reason(child):
            left_out.add(why, name)
        elif kind == "folder":
            if tree.identity(entry) in trail:
                left_out.add("links to a folder that they lie in", name)
            else:
                _walk(tree, entry, name, trail, found, left_out, also, text)
        elif kind != "file":
            left_out.add(kind, name)
        elif (suffix := PurePosixPath(child).suffix.lower()) in SUFFIXES or (also and child.endswith(also)):
            if entry.size > MEMBER_CAP:
                raise OODError(f"{tree.path}: {name} claims {entry.size:,} bytes, more than any image has")
            found.append(replace(entry, name=name))
        elif name != text:
            left_out.add(f"files of another kind ({suffix if _SUFFIX.fullmatch(suffix) else 'no suffix'})", name)
