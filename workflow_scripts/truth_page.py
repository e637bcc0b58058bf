"""Write docs/truth.md, published numbers beside ours, from docs/truth.csv and docs/truth_trained.csv, our numbers.

    python -m workflow_scripts.truth_page --table results/published_checks/published_checks.csv
                                                     keep the numbers of a finished run, and write the page
    python -m workflow_scripts.truth_page --trained results/published-mnist/published/outlier_exposure.csv
                                                     the same of config/published_mnist.yaml, networks trained here
    python -m workflow_scripts.truth_page            write the page
    python -m workflow_scripts.truth_page --check    exit 1 if it differs from what would be written
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import pandas as pd

from workflow_scripts.config import published_checks
from workflow_scripts.config.published_checks import PublishedChecks
from workflow_scripts.core import generated
from workflow_scripts.core.commands import described
from workflow_scripts.core.digest import ROOT
from workflow_scripts.core.errors import OODError, stage
from workflow_scripts.core.files import atomic
from workflow_scripts.reporting import published, results, truth

CHECKS = ROOT / "config" / "published_checks.yaml"
PAGE, RECORD = ROOT / "docs" / "truth.md", ROOT / "docs" / "truth.csv"
TRAINED = ROOT / "docs" / "truth_trained.csv"
RECORDED = ["check", "quantity", "printed", "ours"]
"""Columns of the record: what a run alone can say, and the printed number that it was held to."""
COMMAND = "<!-- generated: uv run python -m workflow_scripts.truth_page -->"


def rows(record: pd.DataFrame, whole: PublishedChecks) -> pd.DataFrame:
    """The whole table; what agrees is worked out again.

    Args:
        record: columns :data:`RECORDED`; ``ours`` is empty where a number was not computed.

    Raises:
        OODError: it is not the record of these checks.
    """
    from workflow_scripts.agreement import base  # imports torch

    found = []
    for check in whole.checks:
        part = record[record["check"] == check.name]
        if dict(zip(part["quantity"], part["printed"], strict=True)) != check.printed:
            raise OODError(f"{check.name}: the recorded run has other printed numbers than {CHECKS.name}; run "
                           "published_checks again, and this command with --table")
        ours = dict(zip(part["quantity"], part["ours"], strict=True))
        absent = {name: base.lacking(check.files[role].find) for role, names in check.left_out().items()
                  for name in names if pd.isna(ours[name])}
        found += base.rows(check.name, check.printed, {k: v for k, v in ours.items() if k not in absent}, absent)
    return pd.DataFrame(found, columns=truth.COLUMNS)


def text(record: pd.DataFrame, whole: PublishedChecks, trained: pd.DataFrame | None = None) -> str:
    """The page.

    Args:
        trained: published numbers beside those of networks trained here; ``None``: nobody trained any.

    Raises:
        OODError: as :func:`rows`.
    """
    here = [] if trained is None else [
        replace(published.laid_out(trained), title="Trained here: Outlier Exposure on MNIST")]
    more = [*here, truth.unchecked([part.model_dump() for part in whole.unchecked]),
            truth.exactness([part.model_dump() for part in whole.exactness])]
    page = truth.document({check.name: check.model_dump() for check in whole.checks}, rows(record, whole), more)
    title, rest = page.split("\n", 1)
    return f"{title}\n\n{COMMAND}\n{rest}"


def parser() -> argparse.ArgumentParser:
    words = described(__spec__, __doc__)
    words.add_argument("--check", action="store_true", help="compare instead of writing; exit with 1 if it differs")
    words.add_argument("--table", type=Path, help="table of a finished run, whose numbers are kept")
    words.add_argument("--trained", type=Path, help="published numbers of networks trained here, which are kept")
    return words


@stage
def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    args = parser().parse_args(argv)
    whole = published_checks.read(CHECKS)
    if args.table and not args.check:
        record = truth.read(args.table)[RECORDED]
        rows(record, whole)  # refused before the record is written
        with atomic(RECORD) as partial:
            record.to_csv(partial, index=False)
    if args.trained and not args.check:
        results.write_csv(TRAINED, published.read(args.trained))
    trained = published.read(TRAINED) if TRAINED.is_file() else None
    record = truth.read(RECORD, RECORDED, "write it with --table")
    generated.keep(PAGE, text(record, whole, trained), __spec__, args.check)


if __name__ == "__main__":
    main()
