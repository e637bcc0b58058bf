"""Publish which images a store holds: a list of their names, for a row's ``keep``.

Command: ``python -m workflow_scripts.publish_list --store results/V/data/places365.test.h5 --out config/lists/P.txt``

A sample that was drawn by seed can so be repeated by others from other copies of the raw files. The list can only be
made where the raw files are; put it under version control.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from workflow_scripts.core.commands import described
from workflow_scripts.core.errors import stage
from workflow_scripts.core.files import atomic
from workflow_scripts.data.images.store import open_store


def publish(store: Path, out: Path) -> int:
    """Write the list. -> how many names it has.

    Raises:
        OODError: there is no whole store.
    """
    with open_store(store) as file:
        names = [name.decode() for name in file["names"][:]]
        definition = json.loads(file.attrs["definition"])
        sources = json.loads(file.attrs["sources"])
    drawn = f", drawn with {json.dumps(definition['sample'])}" if definition.get("sample") else ""
    head = [f"# {definition['dataset']} ({definition['split']}): {len(names):,} images{drawn}",
            *(f"# of {name} {digest}" for name, digest in sorted(sources.items()))]
    with atomic(out) as partial:
        partial.write_text("\n".join([*head, *names]) + "\n", encoding="utf-8")
    return len(names)


def parser() -> argparse.ArgumentParser:
    words = described(__spec__, __doc__)
    words.add_argument("--store", required=True, type=Path, help="image store to list")
    words.add_argument("--out", required=True, type=Path, help="list to write, in config/lists/")
    return words


@stage
def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    args = parser().parse_args(argv)
    print(f"{args.out}: {publish(args.store, args.out):,} names")


if __name__ == "__main__":
    main()
