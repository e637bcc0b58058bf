"""A part of the default run on a real Slurm of four nodes on this machine, with what goes wrong on clusters."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests import checkout
from tests.cluster.slurm import Cluster, obstacle

pytestmark = [pytest.mark.slurm, pytest.mark.slow,
              pytest.mark.skipif(obstacle() is not None, reason=f"no Slurm here: {obstacle()}")]
CONFIG = "tests/cluster/config.yaml"
RUN = "digits/resnet-small/pretrain"
LIMIT = 600  # seconds for one run of snakemake; the plugin can wait for ever
LAB = {"gpu_model": "test", "cpus": 4, "memory": 600, "train_memory": 2000, "most_memory": 6000, "train_minutes": 1}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Cluster:
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.down()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A checkout whose Slurm profile has the values of this cluster, and shorter waits."""
    folder = checkout.copy(tmp_path_factory.mktemp("checkout"))
    profile = folder / "profiles/slurm/profile.yaml"
    text = profile.read_text()
    for key, value in LAB.items():
        text, count = re.subn(rf"(?m)^  {key}: +\S+", f"  {key}: {value}", text)
        assert count == 1, key
    # a minute for the first try; networks run on the CPU here and ask for a GPU all the same
    for old, new in {"latency-wait: 90": "latency-wait: 20", "checks: 20": "checks: 2",
                     'f"min({train_minutes} * attempt, {most_minutes})"': '"1 if attempt == 1 else 20"\n    gpu: 1',
                     "rerun-incomplete": "configfile: [tests/cluster/config.yaml]\nrerun-incomplete"}.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    profile.write_text(text)
    return folder


@contextlib.contextmanager
def head(cluster: Cluster, folder: Path, *words: str, log: str = "head.txt"):
    """The submitting snakemake, as a process that ends with the block."""
    command = [sys.executable, "tests/cluster/quick_snakemake.py", *words, "--workflow-profile", "profiles/slurm"]
    with open(folder / log, "w") as file:
        process = subprocess.Popen(command, cwd=folder, stdout=file, stderr=subprocess.STDOUT,
                                   env={**os.environ, **cluster.environment})
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def until(what: str, condition, process: subprocess.Popen, seconds: float = LIMIT):
    """The first true value of ``condition()``."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert process.poll() is None, f"snakemake ended before: {what}"
        assert time.monotonic() < end, f"not seen: {what}"
        time.sleep(0.5)
    return value


def trainings(cluster: Cluster, seed: int) -> list[dict[str, str]]:
    return [job for job in cluster.jobs() if job["comment"].endswith(f"_{seed}") and "train" in job["comment"]]


def text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def environment_of(seed: int, folder: Path) -> dict[str, str]:
    """Environment of the training that runs in ``folder``, as the system tells it."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if b"workflow_scripts.train" in words and os.readlink(process / "cwd") == str(folder) and (
                    words[words.index(b"--seed") + 1] == str(seed).encode()):
                lines = (process / "environ").read_bytes().decode().split("\0")
                return dict(line.split("=", 1) for line in lines if "=" in line)
    return {}


def test_a_time_out_a_dead_node_and_too_little_memory(cluster, folder):
    log = {seed: folder / f"results/cluster/logs/models/{RUN}/seed{seed}.log" for seed in (0, 1)}
    with head(cluster, folder) as process:
        for seed in log:
            until("an epoch", lambda seed=seed: "epoch" in text(log[seed]), process)
        seen = [environment_of(seed, folder) for seed in log]
        # each training has the GPU that Slurm gave it, and no other
        assert all(len(one["CUDA_VISIBLE_DEVICES"].split(",")) == 1 for one in seen)
        assert len({(one["SLURMD_NODENAME"], one["CUDA_VISIBLE_DEVICES"]) for one in seen}) == 2

        # Slurm's clock stops both; each goes on in a second job
        for seed in log:
            until("a second try", lambda seed=seed: "going on after epoch" in text(log[seed]), process)
            assert trainings(cluster, seed)[0]["state"] == "FAILED"  # by itself; not TIMEOUT

        # their node dies; each goes on, on another node
        dead = next(job for job in trainings(cluster, 0) if job["state"] == "RUNNING")
        cluster.kill_node(dead["node"])
        status = process.wait(LIMIT)
    said = text(folder / "head.txt")
    assert status == 0, said[-4000:]
    jobs = cluster.jobs()
    tries = trainings(cluster, 0)
    assert [job["state"] for job in tries] == ["FAILED", "NODE_FAIL", "COMPLETED"]
    assert tries[2]["node"] != dead["node"] and "going on after epoch" in text(log[0])
    assert [int(job["memory"].rstrip("M")) for job in tries] == [2000, 4000, 6000]

    features = [job for job in jobs if "features" in job["comment"]]
    assert [(job["state"], job["memory"]) for job in features] == [("FAILED", "1200M"), ("COMPLETED", "2400M")]
    others = [job for job in jobs if "features" not in job["comment"] and "train" not in job["comment"]]
    assert [job["state"] for job in others] == ["COMPLETED"] * 3, jobs  # data, scores, report
    assert (folder / "results/cluster/report.html").exists() and (folder / "results/report.html").exists()
    assert not list(folder.rglob("*.resume")) + list(folder.rglob("*.writer")) + list(folder.rglob("*.partial"))

    again = checkout.snakemake(folder, "--cores", "1", "--configfile", CONFIG)
    assert "Nothing to be done" in again.stdout, again.stdout[-2000:]


def test_a_head_that_was_killed_leaves_a_job_and_its_successor_does_not_train_twice(cluster, folder):
    """The outcome has the same bits as that of the other test, which was stopped by a time-out and a dead node."""
    made = folder / f"results/cluster/models/{RUN}/seed0.pt"
    log = folder / f"results/cluster/logs/models/{RUN}/seed0.log"
    if not made.exists():
        pytest.skip("the first test made no checkpoint")
    cluster.up()  # the dead node too
    profile = folder / "profiles/slurm/profile.yaml"
    profile.write_text(profile.read_text().replace("1 if attempt == 1 else 20", "20"))
    expected = shutil.copy(made, folder / "expected.pt")
    for path in (made, made.with_suffix(".h5"), log):
        path.unlink()
    before = len(cluster.jobs())
    target = str(made.relative_to(folder))
    with head(cluster, folder, target) as process:
        until("an epoch", lambda: "epoch" in text(log), process)
        process.kill()
    unlocked = checkout.snakemake(folder, "--unlock", "--configfile", CONFIG)
    assert unlocked.returncode == 0, unlocked.stdout
    with head(cluster, folder, target, log="head2.txt") as process:
        until("the second job waits", lambda: "waiting for it" in text(log) or made.exists(), process)
        status = process.wait(LIMIT)
    assert status == 0, text(folder / "head2.txt")[-4000:]
    assert "was finished by job" in text(log) and "epoch" not in text(log)
    assert [job["state"] for job in cluster.jobs()[before:]] == ["COMPLETED", "COMPLETED"]
    one, other = (torch.load(path, weights_only=True)["state_dict"] for path in (expected, made))
    assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
    assert not list(folder.rglob("*.writer"))
