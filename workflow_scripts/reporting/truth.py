"""Published numbers beside ours: the tables of the checks, laid out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from workflow_scripts.core.errors import OODError
from workflow_scripts.reporting import printing
from workflow_scripts.reporting.layout import Cell, Column, Table, table

COLUMNS = ["check", "quantity", "printed", "ours", "allowed", "reason", "difference", "agrees"]
"""Of a check's table; `ours` is empty where a number is not computed, for want of a file."""


def read(path: Path, columns: Sequence[str] = COLUMNS, mend: str = "delete it and run again") -> pd.DataFrame:
    """The table of one check, or another one with printed numbers.

    Args:
        columns: what it has to hold.
        mend: what to do where it does not.

    Raises:
        OODError: it is missing, or of another form.
    """
    try:
        rows = pd.read_csv(path, dtype={"printed": str})
    except (FileNotFoundError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise OODError(f"{path}: {error}; {mend}") from None
    if list(rows) != list(columns):
        raise OODError(f"{path}: columns {', '.join(rows)}, expected {', '.join(columns)}; {mend}")
    return rows


def shown(ours: float, printed: str) -> str:
    """Our number with one digit more than the printed one."""
    text = printed.split()[0]
    digits = len(text.partition(".")[2])
    return f"{ours:.1e}" if " within " in printed and "." not in text else f"{ours:.{digits + 1}f}"


def counted(rows: pd.DataFrame) -> str:
    """How many of the numbers agree, and how many are not computed."""
    computed = int(rows["ours"].notna().sum())
    absent = f"; {len(rows) - computed} are not computed" if computed < len(rows) else ""
    return f"{int(rows['agrees'].sum())} of {computed} numbers agree{absent}."


def _verdict(agrees: bool, computed: bool) -> Cell:
    if not computed:
        return Cell("not computed")
    return Cell("yes") if agrees else Cell("no", flag="within-no")


def laid_out(title: str, about: Mapping[str, Any], rows: pd.DataFrame) -> Table:
    """The table of one check, with what it proves and what it does not."""
    computed = rows["ours"].notna()
    return table(title, f"{title}: published numbers and ours.", {
        Column("Quantity", numbers=False): rows["quantity"].tolist(),
        Column("Printed", numbers=False): rows["printed"].tolist(),
        Column("Ours"): [Cell(shown(ours, printed), ours) if there else Cell("")
                         for ours, printed, there in zip(rows["ours"], rows["printed"], computed, strict=True)],
        Column("Difference"): [Cell(f"{d:+.2g}", d) if there else Cell("")
                               for d, there in zip(rows["difference"], computed, strict=True)],
        Column("Agrees", numbers=False): [_verdict(agrees, there)
                                          for agrees, there in zip(rows["agrees"], computed, strict=True)],
        Column("Allowed", numbers=False): rows["reason"].tolist(),
    }, before=(f"{counted(rows)} Source: {about['source']}.",
               f"It shows: {about['proves']}", f"It leaves open: {about['leaves_open']}"))


def unchecked(rows: Sequence[Mapping[str, str]]) -> Table:
    """Columns of the papers without a check."""
    return _words("Not checked yet", "Columns of the papers that no check covers, and what is missing.",
                  {"Paper": "paper", "Columns": "columns", "Missing for a check": "lacks"}, rows)


def exactness(rows: Sequence[Mapping[str, str]]) -> Table:
    """How far the images are the official ones."""
    return _words("Images", "How far the copies that docs/truth.md was computed from are the official images.",
                  {"Images": "images", "Equal, bit by bit": "equal", "Not": "differs"}, rows)


def _words(title: str, caption: str, columns: Mapping[str, str], rows: Sequence[Mapping[str, str]]) -> Table:
    return table(title, caption, {Column(head, numbers=False): [row[key] for row in rows]
                                  for head, key in columns.items()}, before=(caption,))


def document(checks: Mapping[str, Mapping[str, Any]], rows: pd.DataFrame, more: Sequence[Table]) -> str:
    """The page in Markdown.

    Args:
        checks: name -> title, source, proves and leaves_open.
        rows: tables of all checks, one below the other.
        more: what stands behind them.
    """
    tables = [laid_out(about["title"], about, rows[rows["check"] == name]) for name, about in checks.items()]
    return "\n".join(["# Published numbers, computed again", "", summary(rows), "",
                      *(printing.markdown(part).rstrip("\n") + "\n" for part in (*tables, *more))])


def summary(rows: pd.DataFrame) -> str:
    """One sentence over all checks."""
    return ("Numbers that were printed, or that released code gave when it was run, beside ours, of the released "
            f"networks, scores and images: {counted(rows)}")
