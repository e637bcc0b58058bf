"""Tables, times and sizes for the terminal."""

from __future__ import annotations

from collections.abc import Sequence


def size(count: float | None) -> str:
    """Bytes as people say them (1 GB = 1e9)."""
    if count is None:
        return "?"
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit:
            return f"{count / unit:,.{0 if count >= 100 * unit else 1}f} {name}"
    return f"{count:.0f} B"


def hours(seconds: float | None) -> str:
    """Seconds as hours; less than two as minutes, less than two minutes as seconds."""
    if seconds is None:
        return "?"
    for unit, name in ((3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:,.{1 if seconds < 100 * unit else 0}f} {name}"
    return f"{seconds:.0f} s"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned columns; the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    return ["  ".join(cell.ljust(width) if not i else cell.rjust(width)
                      for i, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip()
            for row in [head, *rows]]
