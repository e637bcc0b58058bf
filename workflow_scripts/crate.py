"""A finished run as an RO-Crate that others can read, deposit and run again.

    uv run python -m workflow_scripts.crate results/small --to small.crate.zip
    uv run python -m workflow_scripts.crate results/small --to crate --networks    trained networks, too
    uv run python -m workflow_scripts.crate --check small.crate.zip                compare each file with its hash

`--to` is a folder or a .zip. It holds `config.yaml`, tables, figures, metrics and the page below `results/`, what an
installed package holds below `code/`, and `ro-crate-metadata.json`: what each file is, its sha256, and which raw files,
by their hashes, the run used. Raw data, features and scores are not part of it. WorkflowHub reads it (profile Workflow
Run RO-Crate 0.5); `python -m workflow_scripts.reproduce CRATE` runs it again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from workflow_scripts.core.commands import described
from workflow_scripts.core.errors import stage
from workflow_scripts.publishing import crate


def parser() -> argparse.ArgumentParser:
    words = described(__spec__, __doc__)
    words.add_argument("results", nargs="?", type=Path, help="folder of a finished run, such as results/small")
    words.add_argument("--to", type=Path, metavar="CRATE", help="folder or .zip to write")
    words.add_argument("--networks", action="store_true", help="put the trained networks in, too")
    words.add_argument("--check", type=Path, metavar="CRATE", help="compare a crate's files with their hashes instead")
    return words


@stage
def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    args = parser().parse_args(argv)
    if args.check:
        print(f"{args.check}: {crate.checked(args.check)[1]} files, all as the crate says")
        return
    if not args.results or not args.to:
        parser().error("give a folder of results and --to, or --check CRATE")
    print(f"{args.to}: {crate.write(args.results, args.to, args.networks)} files")


if __name__ == "__main__":
    main()
