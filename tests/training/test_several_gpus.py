"""A network that several processes train together is the one that a single process trains."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import h5py
import pytest
import torch

from tests import network_data, several_ranks
from tests.checkout import ROOT
from workflow_scripts.core.errors import OODError
from workflow_scripts.networks import checkpoint
from workflow_scripts.stages import train_network as train
from workflow_scripts.training import launch
from workflow_scripts.training.ranks import ALONE, Ranks

pytestmark = pytest.mark.usefixtures("one_thread")  # as in each of the processes


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """What two processes found."""
    return several_ranks.together(several_ranks.every_method, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("name", several_ranks.CASES)
def test_two_processes_train_as_one(name, pair):
    """Losses, weights, batch norm statistics, queues, theta, prototypes and accuracies; the two ranks to the bit."""
    one = several_ranks.run(name, ALONE)
    first, second = (rank[f"{name}, True"] for rank in pair)
    assert first["losses"] == second["losses"] and first["history"] == second["history"]
    assert len(first["losses"]) == several_ranks.STEPS
    assert first["losses"] == pytest.approx(one["losses"], rel=1e-9, abs=1e-12)
    assert first["state"].keys() == second["state"].keys() == one["state"].keys()
    for key, value in one["state"].items():
        assert torch.equal(first["state"][key], second["state"][key]), key
        torch.testing.assert_close(first["state"][key], value, rtol=1e-6, atol=1e-9, msg=lambda m, k=key: f"{k}: {m}")


@pytest.mark.parametrize("name", several_ranks.CASES)
def test_in_single_precision_the_first_ten_losses_are_equal_too(name, pair):
    """With a small learning rate: rounding grows with each step, in one process as in two."""
    one = several_ranks.run(name, ALONE, exact=False)
    first, second = (rank[f"{name}, False"] for rank in pair)
    assert first["losses"] == second["losses"]
    assert all(torch.equal(first["state"][key], second["state"][key]) for key in one["state"])
    assert first["losses"][:10] == pytest.approx(one["losses"][:10], rel=1e-5, abs=1e-5)


def test_in_bfloat16_statistics_keep_their_digits(tmp_path):
    """The same rounding of maps in one process as in two; what is summed over ranks is single precision."""
    first, second = several_ranks.together(several_ranks.in_half, tmp_path)
    for name in several_ranks.ROUNDED:
        one, exact = (several_ranks.run(name, ALONE, exact=False, rounded=rounded) for rounded in (True, False))
        assert first[name]["losses"] == second[name]["losses"]
        assert first[name]["losses"][:10] == pytest.approx(one["losses"][:10], rel=5e-3, abs=5e-3), name
        assert one["losses"] != exact["losses"], name
        for key, value in one["state"].items():
            assert first[name]["state"][key].dtype == value.dtype, key
            if key.endswith(("running_mean", "running_var")):
                torch.testing.assert_close(first[name]["state"][key], value, rtol=0.02, atol=0.01)


def test_a_signal_to_one_rank_stops_all_and_they_go_on_with_the_same_bits(tmp_path):
    first, second = several_ranks.together(several_ranks.stopped_and_gone_on, tmp_path, str(tmp_path))
    assert first == second
    for name in several_ranks.STOPPED:
        assert "stopped by SIGUSR1 after epoch" in first[name]["said"]
        assert first[name]["steps"] == several_ranks.STEPS - 8 and first[name]["same"], name


def test_shares_are_of_all_images_and_differ_by_one_at_most():
    for count, rows in ((2, 15), (3, 4), (4, 64), (8, 9)):
        ranks = [Ranks(rank, count) for rank in range(count)]
        sizes = [len(range(rows)[one.share(rows)]) for one in ranks]
        assert sizes == ranks[0].sizes(rows) and sum(sizes) == rows and max(sizes) - min(sizes) <= 1
        assert [i for one in ranks for i in range(rows)[one.share(rows)]] == list(range(rows))
    assert Ranks(1, 4).share(3) == slice(0, 3) and not Ranks(1, 4).shares(3)


RECIPE = {
    "method": "cross_entropy", "normalise": "per_image", "augment": [{"random_crop": 2}], "views": 1,
    "frozen_blocks": False, "validation": None, "keep": "last", "outliers": None, "masks": False, "options": {},
    "training": {"epochs": 10, "batch_size": 15, "lr": 0.01, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-4,
                 "drop_last": False, "schedule": {"name": "constant", "milestones": [], "gamma": 0.1, "floor": 0.0}},
}


def words(folder, out: str, gpus: int = 2) -> list[str]:
    config = {"network": network_data.SECTION, "recipe": RECIPE, "released": [], "steps": None}
    return ["--config", json.dumps(config), "--data", str(folder / "rows.train.h5"), "--seed", "0", "--device", "cpu",
            "--gpus", str(gpus), "--threads", "2", "--record", str(folder / f"{out}.h5"), "--out",
            str(folder / f"{out}.pt")]


def test_the_train_stage_starts_its_processes_stops_with_them_and_goes_on(tmp_path, capfd):
    pixels, labels = network_data.images(90, 1)
    network_data.write_store(tmp_path / "rows.train.h5", labels, images=pixels)
    train.main(words(tmp_path, "whole"))
    lines = capfd.readouterr().out.splitlines()
    assert len([line for line in lines if line.startswith("epoch 1/10 ")]) == 1, "only the first rank speaks"

    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-m", "workflow_scripts.stages.train_network", *words(tmp_path, "cut")],
                          text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout.readline().startswith("epoch 1/10 ")
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 1 and said.startswith("error: stopped by SIGTERM after epoch "), said
    assert said.count("\n") == 1 and (tmp_path / "cut.pt.resume").exists() and not (tmp_path / "cut.pt").exists()

    train.main(words(tmp_path, "cut"))
    assert "going on after epoch" in capfd.readouterr().out and not (tmp_path / "cut.pt.resume").exists()
    whole, cut = (checkpoint.read(tmp_path / f"{name}.pt") for name in ("whole", "cut"))
    assert whole["about"] == cut["about"] and len(whole["about"]["history"]) == 10
    assert all(torch.equal(whole["state_dict"][key], value) for key, value in cut["state_dict"].items())
    with h5py.File(tmp_path / "cut.h5") as file:
        assert len(file["history/loss"]) == 10


DYING = """
import os, signal, sys, time
rank = int(sys.argv[sys.argv.index("--rank") + 1])
if rank == 1:
    {how}
time.sleep(600)
"""


@pytest.mark.parametrize(("how", "message"), [
    ("print('error: no space', file=sys.stderr); sys.exit(1)", "error: no space\n"),
    ("os.kill(os.getpid(), signal.SIGKILL)", "process 2 of 3 was killed by SIGKILL"),
], ids=["an error", "killed"])
def test_a_dying_process_ends_the_others_and_its_message_is_the_run_s(how, message, tmp_path, monkeypatch, capsys):
    (tmp_path / "dying.py").write_text(DYING.format(how=how))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    started = time.monotonic()
    with pytest.raises((SystemExit, OODError)) as caught:
        launch.launch("dying", [], 3, "cpu")
    assert time.monotonic() - started < 300  # the others would have slept on
    assert message in capsys.readouterr().err + str(caught.value)


def test_more_gpus_than_there_are_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(SystemExit):
        train.main([*words(tmp_path, "x", 3), "--device", "auto"])
    assert capsys.readouterr().err.startswith("error: gpus: 3 were asked for, torch sees 2; lower the key")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert launch._each_its_own(2) == [{"CUDA_VISIBLE_DEVICES": "5"}, {"CUDA_VISIBLE_DEVICES": "7"}]


def test_a_batch_smaller_than_the_gpus_is_refused():
    with pytest.raises(OODError, match=r"training.batch_size: 15 images cannot be shared by 16 GPUs"):
        several_ranks.start("cross_entropy", Ranks(0, 16))
