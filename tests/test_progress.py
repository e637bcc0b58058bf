"""The picture of a run from outside: finished, partial, empty, in the middle, stopped, failed."""

from __future__ import annotations

import base64
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests import checkout
from workflow_scripts import progress
from workflow_scripts.config.expand import read_plan
from workflow_scripts.config.wiring import Wiring
from workflow_scripts.digest import ROOT
from workflow_scripts.jobs import Job, jobs_of

FAILED = """Select jobs to execute...
[Fri Jan  2 03:04:05 2026]
Error in rule train_network:
    message: train
    jobid: 7
    output: {outputs}
    log: {log} (check log file(s) for error details)
    shell:
        python
"""


@pytest.fixture(scope="module")
def jobs() -> list[Job]:
    return jobs_of(Wiring(read_plan(yaml.safe_load((ROOT / "config.yaml").read_text()), ROOT)))


def make(folder: Path, job: Job, seconds: float | None = None) -> None:
    for output in job.outputs:
        (folder / output).parent.mkdir(parents=True, exist_ok=True)
        (folder / output).touch()
    if seconds is not None:
        write(folder / f"results/small/benchmarks/{job.log}.tsv", f"s\th:m:s\n{seconds}\t0:00:01\n")


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def mark(folder: Path, job: Job, ago: float) -> None:
    for output in job.outputs:
        name = base64.urlsafe_b64encode(output.encode()).decode()
        at = time.time() - ago
        os.utime(write(folder / ".snakemake" / "incomplete" / name, "{}"), (at, at))


def shown(folder: Path, capsys, *words: str) -> str:
    progress.main(["--directory", str(folder), *words])
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80 and "\x1b" not in text
    return text


def named(jobs: list[Job], log: str) -> Job:
    return next(job for job in jobs if job.log == log)


def test_an_empty_folder_waits(tmp_path, jobs, capsys):
    text = shown(tmp_path, capsys)
    assert text.startswith(f"small: 0 of {len(jobs)} jobs done, {len(jobs)} waiting\nleft, roughly: ? of job time\n")
    assert "house" in text and "0/15" in text


def test_a_finished_run_is_done_and_watching_it_ends(tmp_path, jobs, capsys):
    for job in jobs:
        make(tmp_path, job, 3)
    text = shown(tmp_path, capsys, "--watch")
    assert f"small: {len(jobs)} of {len(jobs)} jobs done\n" in text and "left, roughly" not in text
    assert all(line.endswith("done") for line in text.splitlines()[3:] if line)


def test_the_jobs_are_those_of_snakemake(jobs, default_run):
    """Each job's log is there after the default run, and no other log is."""
    logs = default_run / "results" / "small" / "logs"
    assert {job.log for job in jobs} == {str(p.relative_to(logs).with_suffix("")) for p in logs.rglob("*.log")}
    assert len(jobs) == len({job.log for job in jobs})


def test_in_the_middle(tmp_path, jobs, capsys):
    trained = "models/digits/resnet-small/{}/seed{}"
    for job in jobs:
        if job.group == "data":
            make(tmp_path, job, 1)
    make(tmp_path, named(jobs, trained.format("pretrain", 0)), 60)
    running, other, waiting, broken = (named(jobs, trained.format(*name)) for name in (
        ("pretrain", 1), ("goe", 0), ("oe", 0), ("npos", 1)))
    logs = tmp_path / "results" / "small" / "logs"
    for job in (running, other, waiting):
        mark(tmp_path, job, 81)
    make(tmp_path, other)  # an output with a marker is not done
    write(logs / f"{running.log}.log", "epoch 2/6  loss 1.0\nepoch 3/6  loss 0.9\n")
    write(logs / f"{other.log}.log", "loading\n")
    os.utime(write(logs / f"{waiting.log}.log", "an earlier try\n"), (1, 1))
    write(logs / f"{broken.log}.log", "epoch 1/3\nerror: the loss is nan in epoch 2\n")
    write(tmp_path / ".snakemake/log/1.snakemake.log",
          FAILED.format(outputs=", ".join([broken.outputs[0], "x.h5"]), log="x.log"))
    write(tmp_path / ".snakemake/log/2.snakemake.log", "Building DAG of jobs...\n")  # a dry run
    write(tmp_path / ".snakemake/locks/0.output.lock", "")
    text = shown(tmp_path, capsys)
    done = sum(job.group == "data" for job in jobs) + 1
    assert f"{done} of {len(jobs)} jobs done, 2 running, 1 queued, 1 failed, {len(jobs) - done - 4} waiting" in text
    # two epochs of this try in 81 s, three to go
    assert re.search(rf"running\n  {running.log}  epoch 3/6, [89]\d s so far, 2 min left\n", text), text
    assert re.search(rf"  {other.log}  [89]\d s so far, any moment\n", text), "longer than the one that is done"
    assert f"queued\n  {waiting.log}\n" in text
    assert f"failed\n  {broken.log}\n      error: the loss is nan in epoch 2\n      log: results/small/logs/" in text

    (tmp_path / ".snakemake/locks/0.output.lock").unlink()
    assert "2 running, 1 stopped" in shown(tmp_path, capsys), "two logs have just been written"
    for job in (running, other, waiting):
        mark(tmp_path, job, 5000)
        os.utime(logs / f"{job.log}.log", (1, 1))
    assert f"jobs done, 3 stopped, 1 failed, {len(jobs) - done - 4} waiting" in shown(tmp_path, capsys)


def test_times_are_those_of_jobs_that_are_alike(tmp_path, jobs):
    wire = Wiring(read_plan(yaml.safe_load((ROOT / "config.yaml").read_text()), ROOT))
    goe, other, cider = (named(jobs, f"models/digits/resnet-small/{name}") for name in (
        "goe/seed0", "goe/seed1", "cider/seed0"))
    make(tmp_path, goe, 60)
    make(tmp_path, named(jobs, "models/digits/resnet-small/oe/seed0"), 20)
    look = progress.Look(wire, tmp_path)
    assert look.found[goe].left == 0 and look.found[other].left == 60, "the same training with another seed"
    assert look.found[cider].left == 40, "the median of all trainings"
    assert look.found[named(jobs, "cards")].left is None
    assert look.left([other, cider]) == "100 s" and look.left([other, named(jobs, "cards")]) == "60 s + ?"


@pytest.mark.parametrize(("seconds", "text"), [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "120 min"),
                                               (7200, "2.0 h"), (200_000, "2.3 d")])
def test_durations(seconds, text):
    assert progress.duration(seconds) == text


def test_torch_is_not_needed():
    code = "import sys, workflow_scripts.progress; assert not {'torch', 'pandas', 'snakemake'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_a_real_run_is_seen_from_outside(tmp_path, jobs, capsys):
    """A training in the background, looked at while it runs and after it was stopped."""
    folder = checkout.copy(tmp_path)
    target = "results/small/models/digits/resnet-small/pretrain/seed0.pt"
    with open(tmp_path / "terminal.txt", "w") as terminal, subprocess.Popen(
            [sys.executable, "-m", "snakemake", "--cores", "1", target], cwd=folder, stdout=terminal,
            stderr=subprocess.STDOUT, start_new_session=True) as process:
        try:
            deadline = time.monotonic() + 240
            while "epoch 1/" not in (text := shown(folder, capsys)):
                assert process.poll() is None and time.monotonic() < deadline, text
                time.sleep(0.5)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    assert "1 running" in text and "models/digits/resnet-small/pretrain/seed0" in text
    for lock in (folder / ".snakemake" / "locks").glob("*.lock"):
        lock.unlink()  # what `snakemake --unlock` does
    for path in (folder / ".snakemake" / "incomplete").rglob("*"):
        os.utime(path, (1, 1))
    os.utime(folder / "results/small/logs/models/digits/resnet-small/pretrain/seed0.log", (1, 1))
    assert "1 stopped" in shown(folder, capsys)
