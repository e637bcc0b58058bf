"""A last batch of one image, of which a batch norm with one value per channel has no variance."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests import typed
from workflow_scripts.core.errors import OODError
from workflow_scripts.methods import cross_entropy
from workflow_scripts.models import resnet_cifar
from workflow_scripts.training.loop import Images, Training

SIDE = 8


def flat() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def small_maps() -> nn.Module:
    """Three times halved, 8x8 pixels are a map of one place."""
    return resnet_cifar.build(resnet_cifar.Options(blocks=(1, 1, 1, 1), width=4), 3)


def large_maps() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))


def frozen() -> nn.Module:
    network = flat()
    network[2].train = lambda mode=True: nn.Module.train(network[2], False)
    return network


def normless() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 3))


def training(network: nn.Module, count: int = 13, **changes: object) -> Training:
    pixels = torch.randint(0, 256, (count, SIDE, SIDE, 3), dtype=torch.uint8)
    recipe = typed.recipe({"normalise": "per_image", "augment": [], "training": {
        "epochs": 1, "batch_size": 4, "lr": 0.01, "schedule": {"name": "constant"}, **changes}})
    return Training(network, cross_entropy.build(cross_entropy.Options(), ()),
                    Images(pixels, torch.arange(count) % 3), recipe, 0)


@pytest.mark.parametrize(("network", "changes", "found"), [
    (flat, {}, "13 train images in batches of 4 leave one for the last, and batch norm '2'"),
    (flat, {"batch_size": 12}, "13 train images in batches of 12 leave one for the last, and batch norm '2'"),
    (small_maps, {}, "13 train images in batches of 4 leave one for the last, and batch norm 'layer4.0.downsample.1'"),
    (flat, {"batch_size": 1}, "it is 1, and batch norm '2'"),
])
def test_it_is_refused_before_the_first_step(network, changes, found):
    run = training(network(), **changes)
    with pytest.raises(OODError) as error:
        run.run(report=lambda line: None)
    drop = "" if changes == {"batch_size": 1} else "training.drop_last: true, or "
    assert str(error.value) == (f"training.batch_size: {found} has a single value per channel of one image, hence no "
                                f"variance; set {drop}another batch_size")
    assert run.done == 0


@pytest.mark.parametrize(("network", "count", "changes", "steps"), [
    (flat, 13, {"drop_last": True}, None), (flat, 12, {}, None), (flat, 14, {}, None), (flat, 13, {}, 3),
    (large_maps, 13, {}, None), (frozen, 13, {}, None), (normless, 13, {"batch_size": 1}, None),
])
def test_all_else_is_trained_on(network, count, changes, steps):
    run = training(network(), count, **changes)
    run.run(steps, report=lambda line: None)
    assert run.done == (steps or run.per_epoch)
