"""What the benchmarks share: sides measured in turns, medians of ratios, targets, the machine, a file of figures.

Each benchmark measures all its sides in one run, turn by turn, so that whatever else the machine does falls on all of
them; what is reported is the median over the turns of the ratio within a turn. Figures are printed as they come, and
written to ``results/benchmarks/{name}.json``.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "results" / "benchmarks"
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # of glibc's mallopt


@dataclass(frozen=True)
class Figure:
    """A number, and where there is one its target."""

    name: str
    value: float
    unit: str = ""
    target: float | None = None
    at_most: bool = False
    """The target is a ceiling."""
    n: int = 1
    """Turns or runs behind the number."""
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def reached(self) -> bool | None:
        if self.target is None:
            return None
        return bool(self.value <= self.target if self.at_most else self.value >= self.target)

    def line(self) -> str:
        text = f"  {self.name}: {self.value:,.4g} {self.unit}".rstrip() + f"  (n = {self.n})"
        if self.target is None:
            return text
        bound = "at most" if self.at_most else "at least"
        return f"{text}  target {bound} {self.target:g}: {'reached' if self.reached else 'not reached'}"


class Report:
    """Figures of one benchmark, printed as they come."""

    def __init__(self, name: str, *packages: str):
        self.name, self.machine, self.figures = name, machine(*packages), []
        print(f"{name}: {self.machine}", flush=True)

    def add(self, figure: Figure) -> Figure:
        self.figures.append(figure)
        print(figure.line(), flush=True)
        return figure

    def write(self, folder: Path = OUT) -> Path:
        """Write ``{name}.json``. -> its path."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.json"
        rows = [asdict(figure) | {"reached": figure.reached} for figure in self.figures]
        path.write_text(json.dumps({"machine": self.machine, "figures": rows}, indent=1) + "\n", encoding="utf-8")
        return path


def machine(*packages: str) -> str:
    """Processor, cores and how busy they are, versions of Python and of ``packages``."""
    cpu = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in cpu.read_text().splitlines() if line.startswith("model name")] if (
        cpu.exists()) else []
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    versions = "".join(f", {package} {metadata.version(package)}" for package in packages)
    return (f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores{load}, "
            f"Python {platform.python_version()}{versions}")


def turns(sides: dict[str, Callable[[], Any]], repeats: int, warm: int = 1,
          wait: Callable[[], None] = lambda: None) -> dict[str, list[float]]:
    """Seconds of each side in each of ``repeats`` turns, after ``warm`` turns that do not count.

    The order is reversed in every second turn. ``wait`` is called before the clock stops (a GPU's queue).
    """
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(warm + repeats):
        for name in list(sides)[::-1 if turn % 2 else 1]:
            started = time.perf_counter()
            sides[name]()
            wait()
            if turn >= warm:
                times[name].append(time.perf_counter() - started)
    return times


def ratio(times: dict[str, list[float]], slow: str, fast: str) -> float:
    """Median over the turns of how many times faster ``fast`` is than ``slow``."""
    return statistics.median(a / b for a, b in zip(times[slow], times[fast], strict=True))


def median(times: dict[str, list[float]], name: str) -> float:
    return statistics.median(times[name])


def default_memory() -> None:
    """Undo ``keep_freed_memory``: glibc's thresholds where they end up in a process of large tensors."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(_MMAP_MAX, 65536)
    mallopt(_MMAP_THRESHOLD, 32 * 2**20)
    mallopt(_TRIM_THRESHOLD, 64 * 2**20)
