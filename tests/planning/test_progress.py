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

import numpy as np
import pytest

from tests import checkout
from workflow_scripts import progress
from workflow_scripts.core.digest import ROOT
from workflow_scripts.planning import dag, setting
from workflow_scripts.planning.dag import Job, Jobs

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
def plan() -> Jobs:
    return dag.read(setting.read(ROOT / "config.yaml"), setting.words(ROOT / "config.yaml"))


@pytest.fixture(scope="module")
def jobs(plan) -> list[Job]:
    return plan.page()


def make(folder: Path, job: Job, seconds: float | None = None) -> None:
    for output in job.outputs:
        (folder / output).parent.mkdir(parents=True, exist_ok=True)
        (folder / output).touch()
    if seconds is not None and job.benchmark:
        write(folder / job.benchmark, f"s\th:m:s\n{seconds}\t0:00:01\n")


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


def name(job: Job) -> str:
    return job.log.removeprefix("results/small/logs/").removesuffix(".log")


def named(jobs: list[Job], name: str) -> Job:
    return next(job for job in jobs if job.log == f"results/small/logs/{name}.log")


def test_an_empty_folder_waits(tmp_path, jobs, capsys):
    text = shown(tmp_path, capsys)
    assert text.startswith(f"small: 0 of {len(jobs)} jobs done, {len(jobs)} waiting\nleft, roughly: ? of job time\n")
    assert "posthoc" in text and "0/15" in text


def test_a_finished_run_is_done_and_watching_it_ends(tmp_path, jobs, capsys):
    for job in jobs:
        make(tmp_path, job, 3)
    text = shown(tmp_path, capsys, "--watch")
    assert f"small: {len(jobs)} of {len(jobs)} jobs done\n" in text and "left, roughly" not in text
    assert all(line.endswith("done") for line in text.splitlines()[3:] if line)


def test_the_jobs_are_those_of_snakemake(jobs, default_run):
    """Each job's log is there after the default run, and no other log is; its benchmark is there too."""
    logs = default_run / "results" / "small" / "logs"
    assert {job.log for job in jobs} == {str(p.relative_to(default_run)) for p in logs.rglob("*.log")}
    unmeasured = {job.rule for job in jobs if not (job.benchmark and (default_run / job.benchmark).is_file())}
    assert unmeasured == {"write_manifest", "make_report"}
    assert len(jobs) == len({job.log for job in jobs})


def test_in_the_middle(tmp_path, jobs, capsys):
    trained = "models/digits/resnet-small/{}/seed{}"
    for job in jobs:
        if job.rule == "prepare_dataset":
            make(tmp_path, job, 1)
    make(tmp_path, named(jobs, trained.format("pretrain", 0)), 60)
    running, other, waiting, broken = (named(jobs, trained.format(*name)) for name in (
        ("pretrain", 1), ("goe", 0), ("oe", 0), ("npos", 1)))
    for job in (running, other, waiting):
        mark(tmp_path, job, 81)
    make(tmp_path, other)  # an output with a marker is not done
    write(tmp_path / running.log, "epoch 2/6  loss 1.0\nepoch 3/6  loss 0.9\n")
    write(tmp_path / other.log, "loading\n")
    os.utime(write(tmp_path / waiting.log, "an earlier try\n"), (1, 1))
    write(tmp_path / broken.log, "epoch 1/3\nerror: the loss is nan in epoch 2\n")
    write(tmp_path / ".snakemake/log/1.snakemake.log",
          FAILED.format(outputs=", ".join([broken.outputs[0], "x.h5"]), log="x.log"))
    write(tmp_path / ".snakemake/log/2.snakemake.log", "Building DAG of jobs...\n")  # a dry run
    write(tmp_path / ".snakemake/locks/0.output.lock", "")
    text = shown(tmp_path, capsys)
    done = sum(job.rule == "prepare_dataset" for job in jobs) + 1
    assert f"{done} of {len(jobs)} jobs done, 2 running, 1 queued, 1 failed, {len(jobs) - done - 4} waiting" in text
    # two epochs of this try in 81 s, three to go
    assert re.search(rf"running\n  {name(running)}\s+epoch 3/6, [89]\d s so far, 2.0 min left\n", text), text
    assert re.search(rf"  {name(other)}  [89]\d s so far, any moment\n", text), "longer than the one that is done"
    assert f"queued\n  {name(waiting)}\n" in text
    assert f"failed\n  {name(broken)}\n      error: the loss is nan in epoch 2\n      log: results/small/logs/" in text

    (tmp_path / ".snakemake/locks/0.output.lock").unlink()
    assert "2 running, 1 stopped" in shown(tmp_path, capsys), "two logs have just been written"
    for job in (running, other, waiting):
        mark(tmp_path, job, 5000)
        os.utime(tmp_path / job.log, (1, 1))
    assert f"jobs done, 3 stopped, 1 failed, {len(jobs) - done - 4} waiting" in shown(tmp_path, capsys)


def test_times_are_those_of_jobs_that_are_alike(tmp_path, plan, jobs):
    goe, other, cider = (named(jobs, f"models/digits/resnet-small/{name}") for name in (
        "goe/seed0", "goe/seed1", "cider/seed0"))
    make(tmp_path, goe, 60)
    make(tmp_path, named(jobs, "models/digits/resnet-small/oe/seed0"), 20)
    snapshot = progress.Snapshot(plan, tmp_path)
    assert snapshot.found[goe].left == 0 and snapshot.found[other].left == 60, "the same training with another seed"
    assert snapshot.found[cider].left == 40, "the median of all trainings"
    assert snapshot.found[named(jobs, "cards")].left is None
    assert snapshot.left([other, cider]) == "100 s" and snapshot.left([other, named(jobs, "cards")]) == "60 s + ?"


def test_paths_beside_an_outside_configuration(tmp_path, monkeypatch, capsys):
    """`./` in a configuration is beside it, as for Snakemake, for every command that reads one."""
    text = (ROOT / "config.yaml").read_text() + "\nimported: [{paper: posthoc, id: digits, network: other, "
    text += "name: theirs, label: Theirs, seed: 0, higher_is: id, files: ./scores.npz}]\n"
    (tmp_path / "mine.yaml").write_text(text)
    np.savez(tmp_path / "scores.npz", digits=np.zeros(3), faces=np.zeros(3))
    plan = setting.read(tmp_path / "mine.yaml")
    assert [set(map(str, taken.files.values())) for taken in plan.imported.values()] == [{str(tmp_path / "scores.npz")}]
    jobs = dag.read(plan, setting.words(tmp_path / "mine.yaml")).page()
    assert "imported/digits/other/theirs/seed0" in map(name, jobs)


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
