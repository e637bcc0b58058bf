"""Published numbers beside ours: the tables of the checks, laid out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from workflow_scripts.core.errors import OODError
from workflow_scripts.reporting.layout import Cell, Column, Table, table

COLUMNS = ["check", "quantity", "printed", "ours", "allowed", "reason", "difference", "agrees"]


def read(path: Path) -> pd.DataFrame:
    """The table of one check.

    Raises:
        OODError: it is missing, or of another form.
    """
    try:
        rows = pd.read_csv(path, dtype={"printed": str})
    except (FileNotFoundError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise OODError(f"{path}: {error}; delete it and run again") from None
    if list(rows) != COLUMNS:
        raise OODError(f"{path}: columns {', '.join(rows)}, expected {', '.join(COLUMNS)}; delete it and run again")
    return rows


def shown(ours: float, printed: str) -> str:
    """Our number with one digit more than the printed one."""
    text = printed.split()[0]
    digits = len(text.partition(".")[2])
    return f"{ours:.1e}" if " within " in printed and "." not in text else f"{ours:.{digits + 1}f}"


def laid_out(title: str, about: Mapping[str, str], rows: pd.DataFrame) -> Table:
    """The table of one check, with what it proves and what it does not."""
    count, total = int(rows["agrees"].sum()), len(rows)
    part = [f"Where a pass takes long, {about['images']} images of each set are looked at."] if about["images"] else []
    return table(title, f"{title}: published numbers and ours.", {
        Column("Quantity", numbers=False): rows["quantity"].tolist(),
        Column("Printed", numbers=False): rows["printed"].tolist(),
        Column("Ours"): [Cell(shown(ours, printed), ours) for ours, printed in zip(rows["ours"], rows["printed"],
                                                                                  strict=True)],
        Column("Difference"): [Cell(f"{d:+.2g}", d) for d in rows["difference"]],
        Column("Agrees", numbers=False): [Cell("yes" if agrees else "no", flag="" if agrees else "within-no")
                                          for agrees in rows["agrees"]],
        Column("Allowed", numbers=False): rows["reason"].tolist(),
    }, before=(f"{count} of {total} numbers agree. Source: {about['source']}.",
               *part, f"It shows: {about['proves']}", f"It leaves open: {about['leaves_open']}"))
