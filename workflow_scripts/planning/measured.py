"""What jobs took, from Snakemake's benchmark files of a results folder."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from workflow_scripts.planning.dag import Job

_SEED = re.compile(r"/seed\d+(?=[./])")


def kind(job: Job) -> str:
    """What a job has in common with those that differ in the seed alone: the place of its benchmark without it."""
    return _SEED.sub("", job.benchmark)


class Measured:
    """Wall seconds of the jobs of a results folder.

    Args:
        folder: where ``results`` lies.
        root: the variant's folder below it, ``results/small``.
    """

    def __init__(self, folder: Path, root: str):
        self.seconds: dict[str, float] = {}
        self._kinds: dict[str, list[float]] = {}
        for path in sorted((folder / root / "benchmarks").rglob("*.tsv")):
            try:
                with open(path, newline="", encoding="utf-8") as file:
                    took = [float(row["s"]) for row in csv.DictReader(file, delimiter="\t")]
            except (OSError, ValueError, KeyError, TypeError, UnicodeDecodeError):
                continue  # one that is being written
            if took:
                name = path.relative_to(folder).as_posix()
                self.seconds[name] = took[-1]
                self._kinds.setdefault(_SEED.sub("", name), []).append(took[-1])

    def of(self, job: Job) -> float | None:
        """Seconds that this very job took."""
        return self.seconds.get(job.benchmark)

    def alike(self, job: Job) -> float | None:
        """Mean seconds of the same job with other seeds."""
        found = self._kinds.get(kind(job))
        return sum(found) / len(found) if found else None
