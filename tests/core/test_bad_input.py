"""What goes wrong on other people's machines: the message names the file and what to do, and nothing good is lost."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from tests.checkout import ROOT
from workflow_scripts.core.errors import OODError, nearest, stage, unknown
from workflow_scripts.core.files import atomic
from workflow_scripts.networks import checkpoint
from workflow_scripts.stages import extract_features as features
from workflow_scripts.stages import prepare_dataset as prepare
from workflow_scripts.stages import train_network as train

NETWORK = {"name": "tiny", "model": "resnet_cifar", "options": {"blocks": [1, 1, 1, 1], "width": 2}}
RECIPE = {"method": "cross_entropy", "options": {}, "normalise": "per_image", "augment": [],
          "training": {"epochs": 1, "batch_size": 32, "lr": 0.05, "momentum": 0.9, "nesterov": False,
                       "weight_decay": 0.0, "drop_last": False,
                       "schedule": {"name": "constant", "milestones": [], "gamma": 0.1, "floor": 0.0}}}
DIGITS = {"dataset": "digits", "split": "train", "reader": "digits", "options": {"part": "train", "train_per_class": 4},
          "classes": 10, "geometry": "squash32", "limit_per_class": None, "sample": None, "count": None, "raw": [],
          "limit": None}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "digits.train.h5"
    prepare.main(["--config", json.dumps(DIGITS), "--out", str(path)])
    return path


@pytest.fixture(scope="module")
def trained(store) -> Path:
    path = store.parent / "seed0.pt"
    train.main(["--config", json.dumps({"network": NETWORK, "recipe": RECIPE, "released": [], "steps": 1}),
                "--data", str(store), "--seed", "0", "--device", "cpu", "--out", str(path)])
    return path


def extract(store: Path, trained: Path, out: Path, network: dict = NETWORK) -> None:
    section = {"network": network, "normalise": "per_image", "batch_size": 16, "sets": ["digits.train"]}
    features.main(["--config", json.dumps(section), "--checkpoint", str(trained), "--stores", str(store),
                   "--out", str(out), "--head", str(out.with_name("head.h5")), "--device", "cpu"])


def message(capsys, run, *args, **kwargs) -> str:
    """What a stage prints on stderr when it ends with exit status 1: one line, no traceback."""
    with pytest.raises(SystemExit) as end:
        run(*args, **kwargs)
    assert end.value.code == 1
    text = capsys.readouterr().err.strip()
    assert text.startswith("error: ") and "Traceback" not in text
    return text


def test_features_and_head_are_written(store, trained, tmp_path):
    extract(store, trained, tmp_path / "digits.train.h5")
    with h5py.File(tmp_path / "digits.train.h5") as file, h5py.File(tmp_path / "head.h5") as head:
        z = file["features"][()] @ head["weight"][()].T + head["bias"][()]
        np.testing.assert_allclose(z, file["logits"][()], atol=1e-5)
        assert file["features"].shape == (40, 16) and head["bn_weight"].shape == (16,)


def test_features_that_are_not_finite_stop_the_run_and_leave_no_file(store, trained, tmp_path, capsys):
    content = checkpoint.read(trained)
    content["state_dict"]["conv1.weight"][0] = torch.nan
    torch.save(content, tmp_path / "nan.pt")
    text = message(capsys, extract, store, tmp_path / "nan.pt", tmp_path / "x.h5")
    assert "set 'digits.train': features of images 0..15 are not finite" in text
    assert {p.name for p in tmp_path.iterdir()} == {"nan.pt"}


def test_a_checkpoint_for_another_network_is_refused(store, trained, tmp_path, capsys):
    wider = {**NETWORK, "name": "wider", "options": {"blocks": [1, 1, 1, 1], "width": 4}}
    text = message(capsys, extract, store, trained, tmp_path / "x.h5", wider)
    assert "is not of network 'wider'" in text and str(trained) in text


def test_a_truncated_store_is_refused(store, trained, tmp_path, capsys):
    cut = tmp_path / "digits.train.h5"
    cut.write_bytes(store.read_bytes()[:5000])
    text = message(capsys, extract, cut, trained, tmp_path / "x.h5")
    assert str(cut) in text and "delete" in text


def test_a_missing_store_is_named(trained, tmp_path, capsys):
    assert "none.h5" in message(capsys, extract, tmp_path / "none.h5", trained, tmp_path / "x.h5")


def test_a_failed_run_keeps_what_was_there(tmp_path):
    target = tmp_path / "file"
    target.write_text("good")
    with pytest.raises(OODError), atomic(target) as partial:
        partial.write_text("half")
        raise OODError("stop")
    assert target.read_text() == "good" and list(tmp_path.iterdir()) == [target]


def test_of_two_writers_of_one_file_the_later_counts_and_nothing_is_left_of_a_killed_one(tmp_path):
    target = tmp_path / "file"
    (tmp_path / ".file.elsewhere.17.partial").write_text("of a process that was killed")
    (tmp_path / ".file2.elsewhere.17.partial").write_text("of another file")
    with pytest.raises(OODError, match="another process began to write it after this one"), atomic(target) as early:
        early.write_text("early")
        os.rename(early, other := early.with_name(early.name.replace(str(os.getpid()), "1")))
        with atomic(target) as late:
            assert not other.exists()
            late.write_text("late")
    assert target.read_text() == "late"
    assert sorted(p.name for p in tmp_path.iterdir()) == [".file2.elsewhere.17.partial", "file"]


def test_a_full_disk_is_said_so(capsys, monkeypatch):
    @stage
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "results/x.h5")

    monkeypatch.setattr(os, "_exit", sys.exit)
    assert "no space left on the disk while writing results/x.h5" in message(capsys, full)


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="mounting a small disk needs root")
def test_a_disk_that_is_really_full(store, trained, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", disk], check=False).returncode:
        pytest.skip("tmpfs cannot be mounted here")
    try:
        (disk / "good").write_text("good")
        section = json.dumps({"network": NETWORK, "recipe": RECIPE, "released": [], "steps": 1})
        stages = [
            ["stages.train_network", "--config", section, "--data", str(store), "--seed", "0", "--device", "cpu"],
            ["stages.prepare_dataset", "--config", json.dumps(DIGITS)],
        ]
        for words in stages:
            done = subprocess.run([sys.executable, "-m", f"workflow_scripts.{words[0]}", *words[1:], "--out",
                                   str(disk / "out")], cwd=ROOT, capture_output=True, text=True, check=False)
            assert done.returncode == 1, (words[0], done.stderr)
            assert "error: no space left on the disk" in done.stderr, (words[0], done.stderr)
            assert {p.name for p in disk.iterdir()} == {"good"}, words[0]
    finally:
        subprocess.run(["umount", disk], check=False)


def test_names_are_suggested():
    assert nearest("engery", ["energy", "msp"]) == "; did you mean 'energy'?"
    assert str(unknown("here", "zzz", ["b", "a"])) == "here: 'zzz' is not known. Allowed: a, b."
