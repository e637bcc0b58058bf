"""What was left out of a set, and what is to be said of its pixels: counted by reason, the first ones named."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

NAMED = 20  # names kept for each reason
_SHOWN = 5  # names in a line


class Tally:
    """Reason -> how many files, and the names of the first."""

    def __init__(self, records: Iterable[dict[str, Any]] = ()) -> None:
        self._counts: dict[str, int] = {}
        self._first: dict[str, list[str]] = {}
        for record in records:
            self._counts[record["reason"]], self._first[record["reason"]] = record["count"], list(record["first"])

    def __len__(self) -> int:
        return sum(self._counts.values())

    def add(self, reason: str, name: str, count: int = 1) -> None:
        """``count`` things for this reason, the first of which is ``name``."""
        first = self._first.setdefault(reason, [])
        self._counts[reason] = self._counts.get(reason, 0) + count
        if len(first) < NAMED:
            first.append(name)

    def records(self) -> list[dict[str, Any]]:
        """As plain JSON: ``reason``, ``count`` and ``first`` (names), by reason."""
        return [{"reason": reason, "count": count, "first": self._first[reason]}
                for reason, count in sorted(self._counts.items())]

    def lines(self) -> list[str]:
        """One line for each reason: how many, and the first names."""
        return [line(record) for record in self.records()]


def line(record: dict[str, Any]) -> str:
    """A record of :meth:`Tally.records` to read."""
    more = ", ..." if len(record["first"]) > _SHOWN else ""
    return f"{record['reason']}: {record['count']:,} ({', '.join(record['first'][:_SHOWN])}{more})"
