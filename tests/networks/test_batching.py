"""Options of the forward pass: batch size, bfloat16, TF32; and what a job's log ends with."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch

from tests.network_data import CONFIG, write_all
from workflow_scripts.core.errors import OODError
from workflow_scripts.models import densenet_bc
from workflow_scripts.networks import batching, devices
from workflow_scripts.stages import extract_features as features
from workflow_scripts.stages import score_network

SETS = ["rows.train", "rows.test"]


def extracted(folder, **options):
    out = [folder / "features" / f"{name}.h5" for name in SETS]
    folder_pt = str(folder / "seed0.pt")
    features.main(["--config", json.dumps({**CONFIG, "sets": SETS, **options}), "--checkpoint", folder_pt,
                   "--stores", *(str(folder / f"{name}.h5") for name in SETS), "--out", *map(str, out),
                   "--head", str(folder / "head.h5"), "--device", "cpu", "--threads", "1"])
    with h5py.File(out[0]) as file:
        return {key: file[key][:] for key in ("features", "logits")}


def test_bfloat16_is_close_but_not_the_same_and_the_head_is_float32(tmp_path):
    write_all(tmp_path)
    full, rough = extracted(tmp_path), extracted(tmp_path, precision="bfloat16")
    assert rough["features"].dtype == np.float32
    top = np.abs(full["features"]).max()
    assert 1e-5 < np.abs(full["features"] - rough["features"]).max() / top < 0.1
    with h5py.File(tmp_path / "head.h5") as head:
        expected = rough["features"] @ head["weight"][:].T + head["bias"][:]
    np.testing.assert_allclose(rough["logits"], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(extracted(tmp_path, precision="float32")["features"], full["features"])


@pytest.mark.parametrize(("asked", "used"), [(None, 32), (5, 5), ("auto", None)])
def test_the_batch_size_is_configured_fixed_or_measured(tmp_path, capsys, monkeypatch, asked, used):
    write_all(tmp_path)
    sizes, original = [], features.penultimate
    monkeypatch.setattr(features, "penultimate", lambda n, x, c: sizes.append(len(x)) or original(n, x, c))
    extracted(tmp_path, batch_size=asked)
    printed = re.search(r"^batch size (\d+) \(images/s: ", capsys.readouterr().out, re.MULTILINE)
    assert bool(printed) is (asked == "auto")
    assert sizes[0] == (used or int(printed[1]))


def test_scores_that_run_the_network_take_the_same_batch_size(tmp_path, capsys):
    write_all(tmp_path)
    config = {**CONFIG, "score": "odin", "name": "odin", "sets": ["rows.test"], "batch_size": "auto"}
    score_network.main(["--config", json.dumps(config), "--checkpoint", str(tmp_path / "seed0.pt"), "--stores",
                        str(tmp_path / "rows.test.h5"), "--out", str(tmp_path / "o.h5"), "--device", "cpu"])
    assert "batch size " in capsys.readouterr().out


def test_a_size_that_does_not_fit_is_left_out_with_larger_ones():
    class Small(torch.nn.Module):
        def features(self, x):
            if len(x) > 40:
                raise torch.cuda.OutOfMemoryError
            return x

    found = batching.measured(Small(), torch.zeros(1, 3, 4, 4), (16, 32, 64, 128))
    assert list(found) == [16, 32]


@pytest.mark.parametrize("key", ["training.precision", "features.precision"])
def test_bfloat16_is_refused_where_the_gpu_lacks_it(key, monkeypatch):
    gpu = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla V100")
    for there in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True, there=there: there)
        devices.check_bfloat16(torch.device("cpu"), key)
        if there:
            devices.check_bfloat16(gpu, key)
    with pytest.raises(OODError, match=rf"^{key}: bfloat16 .* Tesla V100 .*; set {key}: float32$"):
        devices.check_bfloat16(gpu, key)


def test_float32_is_float32_on_a_gpu_unless_tf32_is_asked_for(monkeypatch):
    flags = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    mode, threads = torch.backends.cudnn.benchmark, torch.get_num_threads()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    try:
        for name, rounded in (("cuda", True), ("auto", False), ("auto", True), ("cuda", False)):
            assert devices.pick(name, 1, tf32=rounded).type == "cuda"
            assert torch.backends.cudnn.allow_tf32 is torch.backends.cuda.matmul.allow_tf32 is rounded
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = flags
        torch.backends.cudnn.benchmark = mode
        torch.set_num_threads(threads)


def test_the_log_of_a_job_ends_with_the_seconds_of_its_stage(tmp_path):
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["features"], file["logits"] = np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32)
        file["labels"] = np.arange(4)
    command = [sys.executable, "-m", "workflow_scripts.stages.precompute_statistics", "--train",
               str(tmp_path / "t.h5"), "--out",
               str(tmp_path / "s.h5")]
    with open(tmp_path / "log", "w") as log:
        subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=True)
    assert re.fullmatch(r"done in \d+\.\d\d s\n", (tmp_path / "log").read_text())
    apart = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not apart.stdout and not apart.stderr


def test_the_bias_of_a_frozen_bottleneck_makes_up_for_rounding():
    """Maps far from zero: the clamp does not centre them, and bfloat16 keeps eight bits of what is not centred."""
    torch.manual_seed(0)
    plain = densenet_bc.Bottleneck(200, 12).eval()
    plain.bn1.running_mean.normal_(std=3)
    frozen = copy.deepcopy(plain)
    with torch.inference_mode():
        frozen.fold_batchnorms()
        unaware = copy.deepcopy(frozen)
        unaware.squeeze.made_up = unaware.squeeze.convolution.bias
        x = plain.bn1.running_mean[:, None, None] + torch.randn(8, 200, 8, 8)
        exact = plain.new(x)
        with torch.autocast("cpu", torch.bfloat16):
            error, found, without = (float((network.new(x.bfloat16()).float() - exact).square().mean().sqrt())
                                     for network in (plain, frozen, unaware))
    assert error < found < 0.9 * without and found < 1.8 * error < 0.02 * float(exact.std())


@pytest.mark.parametrize("falling", [False, True])
def test_a_frozen_densenet_gives_the_same_features_and_gradients(falling):
    torch.manual_seed(0)
    network = densenet_bc.build(densenet_bc.Options(depth=16, growth=4), 5)
    x = torch.randn(8, 3, 32, 32)
    for _ in range(3):
        network(x)
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.bias.data.normal_()
        if falling:  # scales of either sign, none at all, and one that -b / s overflows with
            norm.weight.data.normal_()
            norm.weight.data[:3] = torch.tensor([0.0, -0.0, 1e-42])
    network = network.eval().double()
    x = x.double().requires_grad_()
    expected = network.features(x)
    slope, = torch.autograd.grad(expected.square().sum(), x)
    network.fold_batchnorms()
    network.fold_batchnorms()  # once is enough
    network = network.double()
    found = network.features(x)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.autograd.grad(found.square().sum(), x)[0], slope, rtol=1e-3, atol=1e-4)
    with torch.inference_mode():
        torch.testing.assert_close(network.features(x), expected, rtol=1e-5, atol=1e-5)
    assert [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)] == [network.last_batchnorm]
