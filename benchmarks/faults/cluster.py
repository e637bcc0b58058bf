"""Faults on a real Slurm of four nodes on this machine, which the tests start and stop."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

from benchmarks.faults.scene import Row
from tests.checkout import ROOT
from tests.cluster.slurm import obstacle

FAULTS = {"test_a_time_limit_a_dead_node_and_too_little_memory": (
    ("time limit (Slurm)", "training"), ("node lost (Slurm)", "training"), ("over memory (Slurm)", "features")),
    "test_a_head_that_was_killed_leaves_a_job_and_its_successor_does_not_train_twice": (
        ("head process killed, its job lives on (Slurm)", "training"),)}


def faults() -> Iterator[Row]:
    """A row for each fault of the tests; what a test found wrong is what was lost."""
    reason = obstacle()
    said = "" if reason else subprocess.run(
        [sys.executable, "-m", "pytest", "-rA", "--tb=line", "tests/workflow/test_slurm.py"], cwd=ROOT, check=False,
        capture_output=True, text=True).stdout
    for test, rows in FAULTS.items():
        passed = f"PASSED tests/workflow/test_slurm.py::{test}" in said
        for fault, where in rows:
            row = Row(fault, where, left_out=reason or "")
            if not reason:
                row.add([] if passed else [f"{test} failed"], continued=passed and where == "training")
            yield row
