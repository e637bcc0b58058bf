"""No step of a training waits for the GPU, whatever the method."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks import gpu_checks
from benchmarks import gpu_project as project
from tests.pretended_gpu import CPU, Pretended, Waits, moved, pretending, without_waiting
from workflow_scripts.data.images import augment as augmenting
from workflow_scripts.data.images import colour
from workflow_scripts.training import loop
from workflow_scripts.training.images import Images

KEPT = ((augmenting, "_row"), (colour, "_orders"), (colour, "_places"))  # copied to a device once


@pytest.fixture
def kept(monkeypatch):
    """What was copied to the pretended GPU before."""
    for module, name in KEPT:
        made = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *words, made=made: (
            made(*words) if words[-1] == CPU else Pretended(made(*words[:-1], CPU))))


@pytest.mark.parametrize("wait", [
    lambda x: x.sum().item(), lambda x: float(x.sum()), lambda x: bool((x > 0).all()), lambda x: x.cpu(),
    lambda x: x.to("cpu", non_blocking=True), lambda x: x[x > 0], lambda x: (x > 0).nonzero(),
    lambda x: torch.ones(3).to(x.device), lambda x: torch.tensor([1.0, 2.0], device=x.device),
    lambda x: torch.linalg.cholesky(torch.eye(2, device=x.device))])
def test_the_pretended_gpu_notices_what_waits(wait):
    with pretending(), without_waiting(), pytest.raises(Waits):
        wait(Pretended(torch.randn(4)))


def trained(name: str, gpu: bool) -> Any:
    """A training of a small network, whose tensors are on the pretended GPU."""
    given, method = gpu_checks.training_of(name, "float32", CPU, 16), project.method(name, **gpu_checks.METHODS[name])
    network, data, outliers = given.network, given.data, given.outliers
    if gpu:
        moved(network)
        method.to = lambda device: moved(method)
        data = Images(Pretended(data.pixels), Pretended(data.labels),
                      None if data.masks is None else Pretended(data.masks))
        data.__dict__["host_labels"] = given.data.labels  # copied once
    if gpu and outliers:
        outliers.pixels, outliers.device = Pretended(outliers.pixels), data.labels.device
    torch.manual_seed(1)
    return project.Training(network, method, data, given.recipe, 0, outliers)


def two_epochs(training: Any) -> float:
    """Train; the sum of the last epoch's losses."""
    for epoch in range(2):
        training.total.zero_()
        training.method.start_epoch(training.network, epoch)
        with without_waiting():
            for batch in loop.batches(training.data, training.recipe, 0, epoch, training.rows, training.outliers,
                                      order=training.method.order):
                training._step(batch)
        training.method.end_epoch(training.network, epoch)
    assert training.done == 4
    return float(training.total)


@pytest.mark.parametrize("name", project.names("methods"))
def test_no_method_waits_for_the_gpu_in_a_step(name, kept, monkeypatch):
    """And the steps are those of the CPU."""
    expected = two_epochs(trained(name, gpu=False))
    with pretending():
        monkeypatch.setattr(loop, "channels_last", lambda network: network)  # it is, and torch cannot turn these
        assert two_epochs(trained(name, gpu=True)) == pytest.approx(expected, rel=1e-4)


def test_augmentation_does_not_wait_and_gives_the_same_bytes(kept):
    pixels, index = gpu_checks.images_of(64, CPU).pixels, torch.arange(64) * 7919
    expected = project.augment(pixels, project.TWO_VIEWS, 3, 5, index)
    with pretending():
        pixels, index = Pretended(pixels), Pretended(index)
        with without_waiting():
            found = project.augment(pixels, project.TWO_VIEWS, 3, 5, index)
            project.normalise(found, project.CIFAR10)
    assert torch.equal(found.inner, expected)
