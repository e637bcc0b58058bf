"""Classes are names: compared by name and place, and numbers among them ordered by whoever means them."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence

from workflow_scripts.core.errors import OODError

_NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]+)?")


def same_classes(expected: Sequence[str], found: Sequence[str], one: str, other: str) -> None:
    """Compare classes by name and place.

    Args:
        one, other: say whose they are.

    Raises:
        OODError: other names, or the same in another order.
    """
    if list(expected) == list(found):
        return
    lacking, unknown = (sorted(set(a) - set(b)) for a, b in ((expected, found), (found, expected)))
    if lacking or unknown:
        differ = [f"only in {whose}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
                  for whose, names in ((one, lacking), (other, unknown)) if names]
        hint = "Classes are compared by name: give both the same"
        if {unicodedata.normalize("NFC", name) for name in lacking} & {
                unicodedata.normalize("NFC", name) for name in unknown}:
            hint = ("Some look the same: their accents are written in two ways (Unicode NFC and NFD, as macOS does); "
                    "rename the folders of one")
        raise OODError(f"the classes of {one} ({len(expected)}) and of {other} ({len(found)}) differ; "
                       f"{'; '.join(differ)}. {hint}")
    place = next(i for i, (a, b) in enumerate(zip(expected, found, strict=True)) if a != b)
    raise OODError(f"{one} and {other} have the same classes in another order: label {place} is "
                   f"'{expected[place]}' there and '{found[place]}' here; state one order for both, as the row's "
                   "classes: [...], names in the order of the labels")


def check_numbers(folders: Sequence[str]) -> None:
    """Refuse folders named 0, 1, ..., 10 whose order as text (0, 1, 10, 2) is not that of the numbers; others may be
    among them.

    Args:
        folders: their names, sorted as text.

    Raises:
        OODError: the order of the labels must be stated.
    """
    numbers = [name for name in folders if _NUMBER.fullmatch(name)]
    counted = sorted(numbers, key=lambda name: (float(name), name))
    if counted != numbers:
        ordered = iter(counted)
        counted = [next(ordered) if name in set(numbers) else name for name in folders]
        place = next(i for i, (a, b) in enumerate(zip(folders, counted, strict=True)) if a != b)
        raise OODError(f"classes: the folders are numbers, and label {place} would be folder {folders[place]} as text, "
                       f"{counted[place]} as numbers; state the order of the labels by names: classes: "
                       f"{json.dumps(counted) if len(counted) <= 20 else json.dumps(counted[:4])[:-1] + ', ...]'}")
