"""Compute published numbers again: the released files of one source -> printed number and ours, line by line.

    python -m workflow_scripts.stages.check_published --config '{"check": "odin_cifar10", "files": {"network":
        ["released/odin/densenet10_state.npz"], ...}, "printed": {"test error": "4.81", ...}}' --data-root FOLDER
        [--fetched network=resources/archives/x.pth ...] --out odin_cifar10.csv

A difference that is too large is a line that says so, not an error: the table is what it is for.
"""

from __future__ import annotations

import os
from pathlib import Path

import pandas

from workflow_scripts.agreement.base import Given, lacking, rows
from workflow_scripts.core import plugins, sources
from workflow_scripts.core.errors import OODError, stage
from workflow_scripts.core.files import atomic
from workflow_scripts.core.section import stage_parser
from workflow_scripts.networks import devices
from workflow_scripts.reporting.truth import COLUMNS, counted
from workflow_scripts.stages.sections.check_published import CheckPublished


def located(section: CheckPublished, root: Path | None, fetched: dict[str, str]) -> dict[str, tuple[Path, ...]]:
    """The files of each role: those below the data root, else the downloaded one; without those that may be absent.

    Raises:
        OODError: a file that is in neither place.
    """
    found = {role: tuple(sources.locate(patterns, root)) or tuple(map(Path, filter(None, [fetched.get(role)])))
             for role, patterns in section.files.items()}
    found = {role: files for role, files in found.items() if files or role not in section.left_out}
    absent = next((role for role, files in found.items() if not files), None)
    if absent is not None:
        raise OODError(f"check '{section.check}', file '{absent}': {lacking(section.files[absent])}, below the data "
                       f"root {root}, and --fetched does not name one")
    return found


@stage
def main(argv: list[str] | None = None) -> None:
    parser = stage_parser(__spec__, __doc__, CheckPublished)
    parser.add_argument("--data-root", type=Path, default=os.environ.get("OOD_DATA"), help="folder of the files")
    parser.add_argument("--fetched", nargs="*", default=[], metavar="ROLE=FILE", help="downloaded files")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: %(default)s)")
    parser.add_argument("--out", required=True, type=Path, help="table to write")
    args = parser.parse_args(argv)
    section: CheckPublished = args.config
    devices.pick("cpu", args.threads)
    fetched = dict(pair.split("=", 1) for pair in args.fetched)
    given = Given(located(section, args.data_root, fetched), section.seed)
    absent = {name: lacking(section.files[role]) for role, names in section.left_out.items()
              if role not in given.files for name in names}
    try:
        found = rows(section.check, section.printed, plugins.load("agreement", section.check).compute(given), absent)
    except OODError as error:
        message = str(error)
        raise OODError(message if message.startswith("check ") else f"check '{section.check}': {message}") from None
    table = pandas.DataFrame(found, columns=COLUMNS)
    with atomic(args.out) as partial:
        table.to_csv(partial, index=False)
    print(f"{section.check}: {counted(table)}", flush=True)


if __name__ == "__main__":
    main()
