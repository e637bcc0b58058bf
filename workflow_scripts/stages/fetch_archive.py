"""Fetch one raw file: addresses -> verified file.

Command: ``python -m workflow_scripts.stages.fetch_archive --config JSON --out FILE [--lock FILE] [--offline]``

The lock file and ``offline`` are no part of the config: they change nothing of the file, so they must not make a job
run again. A local address is used in place: the file becomes a symbolic link.
"""

from __future__ import annotations

from pathlib import Path

from workflow_scripts.core.errors import OODError, stage
from workflow_scripts.core.section import stage_parser
from workflow_scripts.core.sources import instructions
from workflow_scripts.data.archives.download import download
from workflow_scripts.stages.sections.fetch_archive import FetchArchive


def fetch(source: FetchArchive, out: Path, lock: Path | None, offline: bool) -> Path:
    """The raw file at ``out``, verified.

    Raises:
        OODError: it is brought by hand and is not there, or as
        :func:`workflow_scripts.data.archives.download.download`.
    """
    what = f"raw file '{source.name}'"
    if source.datasets:
        what += f" (of {', '.join(source.datasets)})"
    if source.by_hand and not out.exists():
        raise OODError(f"{what} must be brought by hand. Place it here:\n  {instructions(source, out)}")
    return download(source.urls, out, what=what, size=source.size, checksum=source.checksum, lock=lock,
                    offline=offline)


@stage
def main(argv: list[str] | None = None) -> None:
    """Entry point of the stage."""
    parser = stage_parser(__spec__, __doc__, FetchArchive)
    parser.add_argument("--out", required=True, type=Path, help="file to write")
    parser.add_argument("--lock", type=Path, help="JSON file that remembers files without a published checksum")
    parser.add_argument("--offline", action="store_true", help="use only what is on this machine")
    args = parser.parse_args(argv)
    fetch(args.config, args.out, args.lock, args.offline)


if __name__ == "__main__":
    main()
