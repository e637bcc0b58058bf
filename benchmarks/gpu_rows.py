"""Rows of the GPU benchmarks: each is kept apart, timed and written out as soon as it is there.

A row that fails leaves its last lines of traceback and does not stop the others; one for which no time is left, or that
is not done when the time is up, is named as left out. The JSON and the Markdown file are replaced as a whole after
every row.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

PASSED, FAILED, ERROR, MEASURED, LEFT_OUT, ABSENT = "passed", "failed", "error", "measured", "left out", "absent"


class Absent(Exception):
    """Something that the row needs is not installed or not there."""


class Late(Exception):
    """The time of a part is up."""


class Rows:
    """The rows of one run.

    Args:
        name: of the files, ``{name}.json`` and ``{name}.md``.
        out: their folder.
        about: plain values that stand above the rows.
        minutes: in which all is to be done.
    """

    def __init__(self, name: str, out: Path, about: dict[str, Any], minutes: float):
        self.name, self.out, self.about = name, out, about
        self.end = time.monotonic() + 60 * minutes
        self.started = time.monotonic()
        self.rows: list[dict[str, Any]] = []
        self.write()

    def left(self) -> float:
        """Seconds until the end."""
        return self.end - time.monotonic()

    def run(self, section: str, name: str, work: Callable[[], dict[str, Any]], needs: float = 5.0,
            stop: bool = True) -> dict[str, Any]:
        """A row: what ``work`` gives, in the order of its keys.

        Args:
            work: its key ``passed``, where there is one, says whether the row is as it must be.
            needs: seconds that must be left to begin.
            stop: end the row when the time is up, as soon as Python has the word again (between two calls of torch).
        """
        row: dict[str, Any] = {"section": section, "name": name}
        started = time.monotonic()
        if self.left() < needs:
            row |= {"status": LEFT_OUT, "note": f"{self.left():.0f} s left, {needs:.0f} s needed"}
        else:
            try:
                with within(self.left(), "it") if stop else nullcontext():
                    found = dict(work())
                passed = found.pop("passed", None)
                row |= {"status": MEASURED if passed is None else PASSED if passed else FAILED, **found}
            except (Absent, ModuleNotFoundError) as error:
                row |= {"status": ABSENT, "note": str(error)}
            except Exception as error:
                lines = traceback.format_exc().strip().splitlines()
                late = any("Late: " in text for text in lines)  # a compiler wraps it in an error of its own
                row |= {"status": LEFT_OUT if late else ERROR, "note": f"{type(error).__name__}: {str(error)[:300]}",
                        "traceback": lines[-8:]}
        row["seconds"] = round(time.monotonic() - started, 2)
        self.rows.append(row)
        print(f"[{time.monotonic() - self.started:6.1f} s] {line(row)}", flush=True)
        self.write()
        return row

    def dearest(self, section: str) -> float:
        """Seconds of the longest measured row of a section, 0 where there is none."""
        return max((row["seconds"] for row in self.rows if (row["section"], row["status"]) == (section, MEASURED)),
                   default=0.0)

    def count(self, *states: str) -> int:
        return sum(row["status"] in states for row in self.rows)

    def write(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        content = {"about": self.about, "seconds": round(time.monotonic() - self.started, 1), "rows": self.rows}
        replace(self.out / f"{self.name}.json", json.dumps(content, indent=1, default=str) + "\n")
        replace(self.out / f"{self.name}.md", self.markdown())

    def markdown(self) -> str:
        """A table for each section, with the columns that its rows have."""
        about = ", ".join(f"{key}: {value}" for key, value in self.about.items())
        states = {state: self.count(state) for state in (PASSED, FAILED, ERROR, MEASURED, LEFT_OUT, ABSENT)}
        text = [f"# {self.name}", about, ", ".join(f"{n} {state}" for state, n in states.items() if n)]
        for section in dict.fromkeys(row["section"] for row in self.rows):
            rows = [row for row in self.rows if row["section"] == section]
            left = {"section", "traceback"}
            columns = [key for key in dict.fromkeys(key for row in rows for key in row) if key not in left]
            columns = [key for key in columns if key not in ("seconds", "note")] + ["seconds", "note"]
            table = [columns, ["---"] * len(columns), *([shown(row.get(key)) for key in columns] for row in rows)]
            text += [f"## {section}", "\n".join("| " + " | ".join(cells) + " |" for cells in table)]
        return "\n\n".join(text) + "\n"


def line(row: dict[str, Any]) -> str:
    """A row for the terminal."""
    rest = {key: value for key, value in row.items() if key not in ("section", "name", "status", "traceback")}
    values = ", ".join(f"{key} {shown(value)}" for key, value in rest.items())
    return "\n    ".join([f"{row['status']:8} {row['section']}: {row['name']}: {values}", *row.get("traceback", ())])


def shown(value: Any) -> str:
    """A cell of a table."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value).replace("|", "/").replace("\n", " ")


def replace(path: Path, text: str) -> None:
    """Write a file so that it is never half there."""
    unfinished = path.with_name(f"{path.name}.part")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)


@contextmanager
def within(seconds: float, what: str) -> Iterator[None]:
    """Raise :class:`Late` in what takes longer, where signals can do it (main thread, not Windows). One may lie in
    another; the one outside keeps its end."""
    if not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def late(number: int, frame: Any) -> None:
        raise Late(f"{what} took longer than {seconds:.0f} s")

    outer, started = signal.getitimer(signal.ITIMER_REAL)[0], time.monotonic()
    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, min(max(seconds, 0.1), outer or 86400.0))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if outer:
            signal.setitimer(signal.ITIMER_REAL, max(outer - (time.monotonic() - started), 0.01))
