"""docs/tutorial.md: its commands in their order, as a reader types them, and what a step out of order says."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import checkout
from tests.checkout import HANGS, ROOT
from workflow_scripts import compare, plan, results

PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
            for line in block.splitlines()]
STATUS = {"compare": (0, 2)}
"""Word of a command -> how it may end, by what it found."""
DONE = "pip install uv"
DRY = "mine --configfile /my/work/mine.yaml"
"""How a command ends that is not run in full, since the one with a third seed runs it all."""


def write_files(folder: Path) -> Path:
    """The files that the page shows."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in re.findall(r"^`([\w.]+)`:\n\n```\w+\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        (folder / name).write_text(content)
    return folder


@pytest.fixture
def repository(default_run, tmp_path) -> Path:
    """A checkout with the default run, to be changed."""
    folder = checkout.copy(tmp_path / "repository")
    for part in ("results/small", ".snakemake/metadata"):
        shutil.copytree(default_run / part, folder / part, dirs_exist_ok=True)
    return folder


def run(text: str, repository: Path, place: Path) -> str:
    for old, new in {"uv run snakemake": f"{sys.executable} -m snakemake", "/my/work": str(place / "work"),
                     "uv run ood": f"{sys.executable} -m workflow_scripts",
                     "/tmp/before": str(place / "before")}.items():
        text = text.replace(old, new)
    done = subprocess.run(["bash", "-c", text], cwd=repository, text=True, timeout=HANGS, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ})
    expected = next((ends for word, ends in STATUS.items() if word in text.split()), (0,))
    assert done.returncode in expected, f"{text}\n{done.stdout[-3000:]}"
    return done.stdout


@pytest.mark.slow
def test_the_story_from_a_score_to_the_cluster(repository, tmp_path):
    work = write_files(tmp_path / "work")
    assert COMMANDS[0].startswith(DONE) and sum(text.endswith(DRY) for text in COMMANDS) == 2
    said = {text: run(f"{text} -n" if text.startswith("uv run snakemake") and text.endswith(DRY) else text,
                      repository, tmp_path) for text in COMMANDS[1:]}
    assert "options.K" in said["uv run ood why"] and "train_network" not in said["uv run ood why"]
    changed = said["uv run ood compare /tmp/before results/small"]
    assert "knn" in changed and "msp" not in changed and "differences of provenance" in changed
    assert (repository / "config/scores.yaml").read_bytes() == (ROOT / "config/scores.yaml").read_bytes()
    with (repository / "results/small/tables/mine.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if (row["dataset"], row["metric"]) == ("near", "auroc")]
    assert {(row["label"], row["score"]) for row in rows} == {
        (label, score) for label in ("Cross-entropy", "Smoothed labels") for score in ("msp", "energy", "knn")}
    assert all(row["n"] == "3" and 0.5 < float(row["mean"]) <= 1 for row in rows)
    with (work / "numbers.csv").open() as file:
        numbers = [row for row in csv.DictReader(file) if row["paper"] == "mine"]
    assert {row["seed"] for row in numbers} == {"0", "1", "2"}
    *_, last = said.values()
    assert re.search(r"^train_network +\d+$", last, re.MULTILINE)


@pytest.mark.parametrize(("main", "words", "missing", "line"), [
    (results.main, ["results/small"], "", "results/small: expected tables in results/small/tables/*.csv, found none"),
    (compare.main, ["/tmp/before", "results/small"], "", "/tmp/before: expected tables in /tmp/before/tables/*.csv"),
    (plan.main, ["mine", "--configfile", "/my/work/mine.yaml"], "mine.yaml", "--configfile: there is no file "),
    (plan.main, ["mine", "--configfile", "/my/work/mine.yaml"], "net.py",
     "networks[2].options.factory: there is no module net in /my/work; expected net.py there"),
    (plan.main, ["mine", "--configfile", "/my/work/mine.yaml"], "my_method.py",
     "recipes[15].method: there is no file /my/work/my_method.py"),
    (plan.main, ["mine", "--quick"], "", "target: 'mine' is not known")])
def test_a_step_out_of_order_is_told_in_one_line(tmp_path, monkeypatch, capsys, main, words, missing, line):
    work = write_files(tmp_path / "work")
    if missing:
        (work / missing).unlink()
    monkeypatch.chdir(tmp_path)
    places = {"/my/work": str(work), "/tmp/before": str(tmp_path / "before")}
    for old, new in places.items():
        words, line = [word.replace(old, new) for word in words], line.replace(old, new)
    with pytest.raises(SystemExit) as left:
        main(words)
    said = capsys.readouterr().err
    assert left.value.code == 1 and said.startswith(f"error: {line}") and len(said.splitlines()) == 1
