"""Augmentation, randomness, schedules, the loop and checkpoints."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from tests import typed
from workflow_scripts.core.errors import OODError
from workflow_scripts.data.images.augment import augment, normalise, random_crop
from workflow_scripts.data.images.randomness import permutation, uniforms
from workflow_scripts.methods import cross_entropy
from workflow_scripts.models import resnet_cifar
from workflow_scripts.networks import checkpoint
from workflow_scripts.training.layout import channels_last
from workflow_scripts.training.loop import Images, Training, batches
from workflow_scripts.training.schedule import learning_rate

RECIPE = {
    "normalise": "per_image", "augment": [{"random_crop": 2}],
    "training": {"epochs": 3, "batch_size": 16, "lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4,
                 "drop_last": False, "schedule": {"name": "cosine", "milestones": [], "gamma": 0.1, "floor": 0.0}},
}


def images(count: int = 96, classes: int = 3) -> Images:
    """Three classes told apart by the row that is bright."""
    labels = torch.arange(count) % classes
    pixels = torch.randint(0, 60, (count, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for i, label in enumerate(labels):
        pixels[i, 2 + 5 * label:4 + 5 * label] = 220
    return Images(pixels, labels)


def plain(network: torch.nn.Module, recipe: dict = RECIPE) -> Training:
    return Training(network, cross_entropy.build(cross_entropy.Options(), ()), images(), typed.recipe(recipe), 0)


def small() -> torch.nn.Module:
    torch.manual_seed(0)
    return resnet_cifar.build(resnet_cifar.Options(blocks=(1, 1, 1, 1), width=4), 3)


def test_adam_is_torchs():
    """Two steps of the loop, against torch's optimiser on the same batches; momentum is not read."""
    recipe = {**RECIPE, "augment": [], "training": {
        "epochs": 1, "batch_size": 48, "lr": 0.01, "optimiser": "adam", "weight_decay": 1e-3,
        "schedule": {"name": "constant"}}}
    trained, expected = small(), small()
    plain(trained, recipe).run(report=lambda line: None)
    optimiser = torch.optim.Adam(expected.parameters(), 0.01, weight_decay=1e-3)
    channels_last(expected).train()
    for batch in batches(images(), typed.recipe(recipe), 0, 0):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(expected(batch.images), batch.labels).backward()
        optimiser.step()
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(trained.state_dict()[name], value, rtol=1e-5, atol=1e-6)


def test_uniforms_are_uniform_and_independent_of_the_batch():
    u = uniforms(3, 5, torch.arange(20_000), 2)
    assert u.min() >= 0 and u.max() < 1
    counts = torch.histc(u[:, 0], 20, 0, 1)
    assert ((counts - 1000).abs() < 5 * 1000**0.5).all()
    assert abs(np.corrcoef(u[:, 0], u[:, 1])[0, 1]) < 0.03
    assert abs(np.corrcoef(u[1:, 0], u[:-1, 0])[0, 1]) < 0.03
    torch.testing.assert_close(uniforms(3, 5, torch.tensor([7, 123]), 2), u[[7, 123]], rtol=0, atol=0)
    assert not torch.equal(uniforms(3, 6, torch.arange(9), 2), u[:9])
    assert not torch.equal(uniforms(4, 5, torch.arange(9), 2), u[:9])


def test_random_crop_cuts_the_windows_that_torchvision_pads_and_crops():
    data = torch.randint(1, 256, (25, 8, 8, 3), dtype=torch.uint8)
    u = torch.cartesian_prod(torch.arange(5), torch.arange(5)) / 5 + 0.1  # every offset of padding 2 once
    cut = random_crop(data, 2, u)
    for i in range(25):
        padded = tv.pad(data[i].permute(2, 0, 1), [2, 2, 2, 2])
        assert torch.equal(cut[i], tv.crop(padded, i // 5, i % 5, 8, 8).permute(1, 2, 0))


def test_augmentation_has_the_right_distribution():
    data = torch.zeros(4000, 4, 4, 3, dtype=torch.uint8)
    data[:, :, 0] = 255  # the left column is bright
    out = augment(data, typed.steps([{"horizontal_flip": 0.25}]), 0, 0, torch.arange(4000))
    share = (out[:, 0, -1, 0] == 255).float().mean()
    assert abs(share - 0.25) < 0.035  # five standard deviations


@pytest.mark.parametrize("how", ["per_image", {"mean": [0.5, 0.4, 0.3], "std": [0.25, 0.2, 0.1]}])
def test_normalise(how):
    data = torch.randint(0, 256, (4, 8, 8, 3), dtype=torch.uint8)
    x = normalise(data, typed.normalise(how))
    assert x.shape == (4, 3, 8, 8) and x.is_contiguous(memory_format=torch.channels_last)
    if how == "per_image":
        torch.testing.assert_close(x.mean((1, 2, 3)), torch.zeros(4), rtol=0, atol=1e-5)
        torch.testing.assert_close(x.std((1, 2, 3), correction=0), torch.ones(4), rtol=0, atol=1e-5)
        assert torch.isfinite(normalise(torch.full((1, 8, 8, 3), 7, dtype=torch.uint8), how)).all()
    else:
        expected = tv.normalize(data.permute(0, 3, 1, 2).float() / 255, how["mean"], how["std"])
        torch.testing.assert_close(x, expected)


def test_schedules():
    multistep = typed.schedule({"name": "multistep", "milestones": [50, 70, 90], "gamma": 0.1, "floor": 0.0})
    rates = [learning_rate(0.1, multistep, epoch * 10, 10, 100) for epoch in (0, 49, 50, 69, 70, 90, 99)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 1e-3, 1e-4, 1e-4])
    cosine = typed.schedule({"name": "cosine", "milestones": [], "gamma": 0.1, "floor": 0.001})
    assert learning_rate(0.5, cosine, 0, 10, 10) == 0.5
    assert learning_rate(0.5, cosine, 50, 10, 10) == pytest.approx(0.25025)
    assert learning_rate(0.5, cosine, 100, 10, 10) == pytest.approx(0.0005)


def test_an_epoch_sees_every_image_once():
    data = images(50)
    seen = torch.cat([b.index for b in batches(data, typed.recipe(RECIPE), 0, 0)])
    assert torch.equal(seen.sort().values, torch.arange(50))
    assert not torch.equal(permutation(0, 0, 50), permutation(0, 1, 50))
    dropped = {**RECIPE, "training": {**RECIPE["training"], "drop_last": True}}
    assert sum(len(b.index) for b in batches(data, typed.recipe(dropped), 0, 0)) == 48


def test_training_learns_and_is_deterministic():
    weights = []
    for _ in range(2):
        network = small()
        history = plain(network).run(report=lambda line: None)
        weights.append(torch.cat([p.flatten() for p in network.parameters()]))
    assert history[-1]["loss"] < history[0]["loss"] / 2
    assert torch.equal(*weights)


def test_limit_stops_after_its_steps():
    history = plain(small()).run(2, report=lambda line: None)
    assert len(history) == 1


def test_a_loss_that_is_not_finite_stops_the_run():
    broken = {**RECIPE, "training": {**RECIPE["training"], "lr": 1e30}}
    with pytest.raises(OODError, match=r"the loss is (nan|inf) in epoch .*training.lr"):
        plain(small(), broken).run(report=lambda line: None)


def test_checkpoint_round_trip_is_deterministic(tmp_path):
    network = small()
    for name in ("a.pt", "b.pt"):
        checkpoint.save(tmp_path / name, network, {"network": "small", "classes": ["a", "b", "c"], "seed": 0})
    digests = [hashlib.sha256((tmp_path / n).read_bytes()).hexdigest() for n in ("a.pt", "b.pt")]
    assert digests[0] == digests[1]
    other = small()
    content = checkpoint.read(tmp_path / "a.pt")
    checkpoint.load_weights(other, content["state_dict"], "a.pt", "small")
    assert content["about"]["classes"] == ["a", "b", "c"]
    assert list(tmp_path.iterdir()).__len__() == 2  # no partial file is left


def test_bad_checkpoints_are_refused(tmp_path):
    path = tmp_path / "a.pt"
    with pytest.raises(OODError, match="does not exist"):
        checkpoint.read(path)
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(OODError, match="cannot be read.*delete it"):
        checkpoint.read(path)
    checkpoint.save(path, small(), {})
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(OODError, match="cannot be read.*delete it"):
        checkpoint.read(path)
    torch.save({"model": {}}, path)
    with pytest.raises(OODError, match="expected the keys state_dict and about"):
        checkpoint.read(path)
    wider = resnet_cifar.build(resnet_cifar.Options(blocks=(1, 1, 1, 1), width=8), 3)
    deeper = resnet_cifar.build(resnet_cifar.Options(blocks=(2, 1, 1, 1), width=4), 3)
    more = resnet_cifar.build(resnet_cifar.Options(blocks=(1, 1, 1, 1), width=4), 4)
    for network, message in ((wider, r"bn1.bias is \(4,\), expected \(8,\)"), (deeper, "tensors are missing"),
                             (more, r"fc.bias is \(3,\), expected \(4,\)")):
        with pytest.raises(OODError, match=f"is not of network 'n'.*{message}"):
            checkpoint.load_weights(network, small().state_dict(), "x.pt", "n")


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    class Harmful:
        def __reduce__(self):
            return (print, ("this must never be printed",))

    torch.save({"state_dict": Harmful(), "about": {}}, tmp_path / "x.pt")
    with pytest.raises(OODError, match="cannot be read"):
        checkpoint.read(tmp_path / "x.pt")


def test_one_thread_trains_a_network_of_few_channels():
    """In a process of its own, since torch 2.15.0 has crashed here: workflow_scripts/training/layout.py."""
    code = "from tests.training.test_training import plain, small; plain(small()).run(report=lambda line: None)"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], text=True,
                          env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_CHECK_": "3"}, capture_output=True)
    assert done.returncode == 0, done.stderr[-2000:]
