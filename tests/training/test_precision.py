"""Trainings with `precision: bfloat16`: what is rounded, what is not, and that nothing else changes."""

from __future__ import annotations

import pytest
import torch

from tests import typed
from tests.training.test_resume import METHODS, RECIPE, images, pool, state, wide
from tests.training.test_training import small
from workflow_scripts.models import own, resnet_gn, torchvision_imagenet
from workflow_scripts.networks.load import in_bfloat16
from workflow_scripts.training.loop import Training

SHORT = RECIPE | {"outliers": {"batch_size": 8, "order": "shuffled"},
                  "training": RECIPE["training"] | {"epochs": 2}}


def test_all_before_the_features_is_rounded_and_nothing_behind():
    network = small().eval()
    seen = {}
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.register_forward_hook(lambda m, given, out, name=name: seen.update({name: out.dtype}))
    x = torch.rand(4, 3, 16, 16)
    with torch.no_grad():
        exact, logits = network.features(x), network(x)
        seen.clear()
        in_bfloat16(network)
        features, maps, found = network.features(x), network.maps(x), network(x)
        by_place = network.dense(x).mean((2, 3))
    assert seen.pop("linear" if "linear" in seen else "fc") == torch.float32
    assert seen and set(seen.values()) == {torch.bfloat16}
    assert features.dtype == maps.dtype == found.dtype == torch.float32
    assert 1e-5 < (features - exact).abs().max() / exact.abs().max() < 0.05
    torch.testing.assert_close(found, network.head(features), rtol=0, atol=0)
    torch.testing.assert_close(by_place, found, rtol=1e-5, atol=1e-5)
    assert not torch.equal(found, logits)
    assert all(p.dtype == torch.float32 for p in network.state_dict().values() if p.is_floating_point())


class Net(torch.nn.Module):
    """A user's network."""

    def __init__(self, classes: int):
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU(),
                                        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        self.last = torch.nn.Linear(8, classes)

    def forward(self, x):
        return self.last(self.body(x))


class Offering(Net):
    """One that says itself what its features are."""

    @property
    def head(self):
        return self.last

    def features(self, x):
        return self.body(x)


@pytest.mark.parametrize("factory", ["Net", "Offering", "mobilenet_v2"])
def test_networks_with_a_forward_of_their_own_are_rounded_too(factory, monkeypatch):
    torch.manual_seed(0)
    if factory == "mobilenet_v2":
        network = torchvision_imagenet.build(torchvision_imagenet.Options("mobilenet_v2"), 4)
    else:
        monkeypatch.setattr(own, "make", lambda options, classes: globals()[factory](classes))
        network = own.build(own.Options("made.by:the_test"), 4)
    network.eval()
    seen, x = [], torch.rand(4, 3, 32, 32)
    next(m for m in network.modules() if isinstance(m, torch.nn.Conv2d)).register_forward_hook(
        lambda m, given, out: seen.append(out.dtype))
    with torch.no_grad():
        exact = network(x)
        in_bfloat16(network)
        seen.clear()
        logits = network(x)
        assert seen == [torch.bfloat16] and logits.dtype == torch.float32
        features = network.features(x)
        assert seen[-1] == torch.bfloat16 and features.dtype == torch.float32
    torch.testing.assert_close(network.head(features), logits)
    assert 0 < (logits - exact).abs().max() < 0.05 * max(1.0, exact.abs().max())


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_and_gives_the_same_bits_twice(name):
    ends = []
    for rounded in (True, True, False):
        torch.manual_seed(5)
        method, network = METHODS[name](), wide()
        if rounded:
            in_bfloat16(network)
        history = Training(network, method, images(), typed.recipe(SHORT), 0, pool()).run(report=lambda line: None)
        ends.append((history[-1]["loss"], state(network, method)))
    again = [all(torch.equal(ends[0][1][key], other[1][key]) for key in ends[0][1]) for other in ends[1:]]
    assert again == [True, False]
    assert ends[0][0] == pytest.approx(ends[2][0], rel=0.1)


def test_the_dense_loss_is_of_rounded_maps_and_a_float32_head():
    torch.manual_seed(0)
    network = resnet_gn.build(resnet_gn.Options(blocks=(1, 1), width=8), 4)
    torch.nn.init.normal_(network.head.weight)
    x = torch.rand(2, 3, 16, 16)
    expected = network.dense(x)
    in_bfloat16(network)
    found = network.dense(x)
    assert found.dtype == torch.float32 and 0 < (found - expected).abs().max() < 0.05 * expected.abs().max()
    found.square().mean().backward()
    assert all(p.grad.dtype == torch.float32 and torch.isfinite(p.grad).all() for p in network.parameters())
