"""Write docs/truth.md, published numbers beside ours, from a finished run of the target ``published_checks``.

    python -m workflow_scripts.truth_page            write docs/truth.md
    python -m workflow_scripts.truth_page --check    exit 1 if it is not that of config/published_checks.yaml

``--check`` needs no run: it takes our numbers from the page itself, and compares all the rest.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import pandas as pd

from workflow_scripts.agreement import base
from workflow_scripts.config import published_checks
from workflow_scripts.core.digest import ROOT
from workflow_scripts.core.errors import OODError, stage
from workflow_scripts.core.files import atomic
from workflow_scripts.reporting import truth

TARGET = ROOT / "docs" / "truth.md"
TABLE = Path("results") / "published_checks" / "published_checks.csv"
COMMAND = "<!-- generated: uv run python -m workflow_scripts.truth_page -->"


def text(rows: pd.DataFrame) -> str:
    """The page. Raises OODError when a printed number is of another table than the one that is configured."""
    whole = published_checks.read(ROOT / "config" / "published_checks.yaml")
    for check in whole.checks:
        part = rows[rows["check"] == check.name]
        if dict(zip(part["quantity"], part["printed"], strict=True)) != check.printed:
            raise OODError(f"{check.name}: the table of the run has other printed numbers than "
                           "config/published_checks.yaml; run published_checks again")
    more = [truth.unchecked([part.model_dump() for part in whole.unchecked]),
            truth.exactness([part.model_dump() for part in whole.exactness])]
    page = truth.document({check.name: check.model_dump() for check in whole.checks}, rows, more)
    title, rest = page.split("\n", 1)
    return f"{title}\n\n{COMMAND}\n{rest}"


def printed_on(page: str) -> pd.DataFrame:
    """Our numbers as the page has them, beside the configured rest."""
    whole = published_checks.read(ROOT / "config" / "published_checks.yaml")
    found = []
    for check in whole.checks:
        part = page.split(f"### {check.title}\n", 1)[-1].split("\n### ", 1)[0]
        lines = dict(re.findall(r"^\| (.+?) \| .*? \| (.*?) \| ", part, re.MULTILINE))
        for quantity, printed in check.printed.items():
            ours = lines.get(quantity) or "nan"
            found.append((check.name, quantity, printed, float(ours), *base.allowance(printed)))
    return pd.DataFrame(found, columns=["check", "quantity", "printed", "ours", "allowed", "reason"])


def stale(page: str) -> list[str]:
    """Lines of the page that are not those of the configured checks, but for differences and verdicts."""
    expected = printed_on(page).assign(difference=0.0, agrees=True)
    return [line for line in map(_bare, text(expected).splitlines()) if line not in set(map(_bare, page.splitlines()))]


def _bare(line: str) -> str:
    """A line without what only a run says."""
    cells = line.split(" | ")
    if len(cells) == 6:
        return " | ".join(cells[:3])
    return re.sub(r"\d+ of \d+ numbers agree[^.]*\.", "", line)


@stage
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog=f"python -m {__spec__.name}", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    parser.add_argument("--table", type=Path, default=TABLE, help="of the finished run (default: %(default)s)")
    args = parser.parse_args(argv)
    if args.check:
        wrong = stale(TARGET.read_text(encoding="utf-8"))
        if wrong:
            print(f"{TARGET}: lacks '{wrong[0]}'; run published_checks and write it again", file=sys.stderr)
            sys.exit(1)
        return
    page = text(truth.read(args.table))
    with atomic(TARGET) as partial:
        partial.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
