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
from tests.cluster.slurm import GPU_NODES, Cluster, obstacle

pytestmark = [pytest.mark.slurm, pytest.mark.slow,
              pytest.mark.skipif(obstacle() is not None, reason=f"no Slurm here: {obstacle()}")]
CONFIG = "tests/cluster/config.yaml"
RUN = "digits/resnet-small/pretrain"
LIMIT = 400  # seconds that anything may take; the plugin can wait for ever
LAB = {"gpu_model": "test", "cpus": 4, "memory": 600, "train_memory": 2000, "most_memory": 6000, "train_minutes": 20}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Cluster:
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.down()


def adapted(folder: Path, config: str) -> Path:
    """A checkout whose Slurm profile gets the values of this cluster, and shorter waits."""
    profile = folder / "profiles/slurm/profile.yaml"
    text = profile.read_text()
    for key, value in LAB.items():
        text, count = re.subn(rf"(?m)^  {key}: +\S+", f"  {key}: {value}", text)
        assert count == 1, key
    # networks run on the CPU here, and ask for a GPU all the same
    for old, new in {"latency-wait: 90": "latency-wait: 20", "checks: 20": "checks: 2",
                     "--signal=USR1@60'\"": "--signal=USR1@60'\"\n      gpu: 1",
                     "rerun-incomplete": f"configfile: [{config}]\nrerun-incomplete"}.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    profile.write_text(text)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return adapted(checkout.copy(tmp_path_factory.mktemp("checkout")), CONFIG)


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


def trainings(cluster: Cluster) -> list[dict[str, str]]:
    return [job for job in cluster.jobs() if "rule_train_network" in job["comment"]]


def text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def printed(folder: Path, job: dict[str, str]) -> str:
    """What a Slurm job printed: its snakemakes, and Slurm itself."""
    return "".join(map(text, (folder / "results/slurm_logs").rglob(f"{job['id']}.log")))


def environment(folder: Path) -> dict[str, str]:
    """Environment of the training that runs in ``folder``, as the system tells it."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if b"workflow_scripts.stages.train_network" in words and os.readlink(process / "cwd") == str(folder):
                lines = (process / "environ").read_bytes().decode().split("\0")
                return dict(line.split("=", 1) for line in lines if "=" in line)
    return {}


def test_a_time_limit_a_dead_node_and_too_little_memory(cluster, folder):
    others = [cluster.call("sbatch", "--parsable", "-p", "gpu", "-w", node, "--gpus=1", "--no-requeue",
                           "--output=/dev/null", "--wrap=sleep 900").strip() for node in GPU_NODES]
    made, log = (folder / f"results/cluster/{kind}/{RUN}/seed0{end}" for kind, end in (("models", ".pt"),
                                                                                      ("logs/models", ".log")))
    with head(cluster, folder) as process:
        until("an epoch", lambda: "epoch" in text(log), process)
        # the first GPU of each node is another job's: the training has the one that Slurm gave it
        given, first = environment(folder), trainings(cluster)[0]
        assert (given["SLURMD_NODENAME"], given["CUDA_VISIBLE_DEVICES"]) == (first["node"], "1")
        assert "gpu:test:1(IDX:1)" in cluster.call("scontrol", "-d", "show", "job", first["id"])

        # a minute is left: Slurm's clock says so to the training, which keeps its progress and goes on in a second job
        minutes = int(first["elapsed"].split(":")[-2]) + 1
        cluster.call("scontrol", "update", f"jobid={first['id']}", f"timelimit={minutes}")
        until("a second try", lambda: len(trainings(cluster)) > 1 and "going on after epoch" in text(log), process)
        assert trainings(cluster)[0]["state"] == "FAILED"  # it ended by itself; else TIMEOUT

        # its node dies; it goes on, on another node
        cluster.kill_node(trainings(cluster)[1]["node"])
        until("a third try", lambda: len(trainings(cluster)) > 2 and "going on after epoch" in text(log), process)
        shutil.copy(f"{made}.resume", folder / "progress")
        cluster.call("scancel", *others)
        status = process.wait(LIMIT)
    said = text(folder / "head.txt")
    assert status == 0, said[-4000:]
    tries = trainings(cluster)
    assert [job["state"] for job in tries] == ["FAILED", "NODE_FAIL", "COMPLETED"]
    assert tries[1]["node"] != tries[2]["node"]
    assert [job["memory"] for job in tries] == ["2000M", "4000M", "6000M"]

    jobs = [job for job in cluster.jobs() if job not in tries and job["id"] not in others]
    features = [job for job in jobs if "features" in job["comment"]]
    assert [(job["state"], job["memory"]) for job in features] == [("FAILED", "600M"), ("COMPLETED", "1200M")]
    assert "exceeded memory limit" in printed(folder, features[0])
    data, scores, report = (job for job in jobs if job not in features)
    assert {data["state"], scores["state"], report["state"]} == {"COMPLETED"}
    # a group's unconnected parts are one step, side by side
    assert printed(folder, data).count("Group job data ") == 1
    assert (folder / "results/cluster/report.html").exists() and (folder / "results/report.html").exists()
    left = [path.name for ending in ("resume", "writer", "partial") for path in folder.rglob(f"*.{ending}")]
    assert not left

    again = checkout.snakemake(folder, "--cores", "1", "--configfile", CONFIG)
    assert "Nothing to be done" in again.stdout, again.stdout[-2000:]


def test_a_head_that_was_killed_leaves_a_job_and_its_successor_does_not_train_twice(cluster, folder):
    """The outcome has the same bits as that of the other test, which went through a time limit and a dead node."""
    made, log = (folder / f"results/cluster/{kind}/{RUN}/seed0{end}" for kind, end in (("models", ".pt"),
                                                                                      ("logs/models", ".log")))
    if not made.exists():
        pytest.skip("the first test made no checkpoint")
    cluster.up()  # the dead node too
    expected = shutil.copy(made, folder / "expected.pt")
    for path in (made, made.with_suffix(".h5"), log):
        path.unlink()
    shutil.copy(folder / "progress", f"{made}.resume")  # most of it is done
    before, target = len(cluster.jobs()), str(made.relative_to(folder))
    with head(cluster, folder, target) as process:
        until("an epoch", lambda: "epoch" in text(log), process)
        process.kill()
    unlocked = checkout.snakemake(folder, "--unlock", "--configfile", CONFIG)
    assert unlocked.returncode == 0, unlocked.stdout
    with head(cluster, folder, target, log="head2.txt") as process:
        status = process.wait(LIMIT)
    assert status == 0, text(folder / "head2.txt")[-4000:]
    assert re.search(r"being written by job \d+, .*waiting for it\n.*was finished by job", text(log)), text(log)
    assert [job["state"] for job in cluster.jobs()[before:]] == ["COMPLETED", "COMPLETED"]
    one, other = (torch.load(path, weights_only=True)["state_dict"] for path in (expected, made))
    assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
    assert not list(folder.rglob("*.writer"))
