"""The faults script on one training, and its record on the page of the docs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks.faults.__main__ import BEGIN, END, PAGE, RECORD, table
from benchmarks.faults.trainings import TRAININGS
from tests.checkout import ROOT


def test_the_page_shows_the_record_and_nothing_was_lost():
    record = json.loads(RECORD.read_text())
    assert PAGE.read_text().split(BEGIN)[1].split(END)[0].strip() == table(record)
    assert not [row for row in record["rows"] if row["lost"]]
    killed = {row["where"]: row["times"] for row in record["rows"] if row["fault"] == "kill -9"}
    assert killed == dict.fromkeys(TRAININGS, 3)


@pytest.mark.slow
def test_a_training_that_is_killed_loses_nothing(default_run, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.faults", "--run", str(default_run), "--only", "kill", "--trainings",
         "cross-entropy", "--moments", "1", "--out", str(tmp_path / "record.json")],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=3600)
    assert done.returncode == 0, done.stdout + done.stderr
    row, = json.loads((tmp_path / "record.json").read_text())["rows"]
    assert (row["fault"], row["times"], row["lost"]) == ("kill -9", 1, [])
