"""Networks: parameter counts and outputs of the released classes (golden vectors), and what every network offers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from workflow_scripts.core import plugins
from workflow_scripts.core.errors import OODError
from workflow_scripts.models import densenet_bc, mnist_convnet, resnet_cifar, wide_resnet, wide_resnet_biased

# Counts by executing the released constructors (HIMPLoS 7a01249, G-OE 094d880, bg-resample cf1db77).
COUNTS = [
    ("resnet_cifar", {}, 10, 11_173_962),
    ("resnet_cifar", {}, 100, 11_220_132),
    ("resnet_cifar", {}, 200, 11_271_432),
    ("resnet_cifar", {"blocks": [3, 4, 6, 3]}, 10, 21_282_122),
    ("resnet_cifar", {"blocks": [3, 4, 6, 3]}, 100, 21_328_292),
    ("wide_resnet", {}, 10, 2_243_546),
    ("wide_resnet", {}, 100, 2_255_156),
    ("wide_resnet_biased", {}, 10, 8_955_050),
    ("wide_resnet_biased", {}, 100, 8_978_180),
    ("wide_resnet_biased", {}, 200, 9_003_880),
    ("wide_resnet_biased", {"depth": 28, "widen": 10}, 10, 36_489_290),
    ("wide_resnet_biased", {"depth": 28, "widen": 10}, 100, 36_546_980),
    ("wide_resnet_biased", {"depth": 28, "widen": 10}, 200, 36_611_080),
    ("densenet_bc", {}, 10, 769_162),
    ("densenet_bc", {}, 100, 800_032),
    ("densenet_bc", {}, 200, 834_332),
    ("mnist_convnet", {}, 10, 21_840),  # Outlier Exposure e6ede98
]


@pytest.mark.parametrize(("model", "options", "classes", "count"), COUNTS)
def test_parameter_counts(model, options, classes, count):
    with torch.device("meta"):
        network = plugins.load("models", model).build(plugins.parse_options("models", model, options, "test"), classes)
    assert sum(p.numel() for p in network.parameters()) == count


def test_the_network_of_mnist_sees_grey_and_refuses_other_sizes():
    network = mnist_convnet.build(mnist_convnet.Options(), 10).eval()
    colour = torch.rand(2, 3, 28, 28)
    grey = (colour * torch.tensor(mnist_convnet.GREY)[:, None, None]).sum(1, keepdim=True).expand(-1, 3, -1, -1)
    with torch.inference_mode():
        torch.testing.assert_close(network(colour), network(grey))
        torch.testing.assert_close(network(colour), network.head(network.features(colour)))
        with pytest.raises(OODError, match="images of 32x32, expected 28x28; set the dataset's geometry to squash28"):
            network(torch.rand(1, 3, 32, 32))


def test_densenet_channels_and_tensors():
    with torch.device("meta"):
        network = densenet_bc.build(densenet_bc.Options(), 100)
    path = [network.trans1.bn1.num_features, network.trans1.conv1.out_channels, network.trans2.bn1.num_features,
            network.trans2.conv1.out_channels, network.bn1.num_features]
    assert path == [216, 108, 300, 150, 342]
    assert len(network.state_dict()) == 596  # the released CIFAR-100 checkpoint's count


@pytest.mark.parametrize(("name", "network"), [
    ("resnet18_div16", resnet_cifar.build(resnet_cifar.Options(width=4), 7)),
    ("densenet22_k4", densenet_bc.build(densenet_bc.Options(depth=22, growth=4), 7)),
    ("wrn16_2_div4", wide_resnet.build(wide_resnet.Options(depth=16, dropout=0, width=4), 7)),
    ("wrn16_2_div4_bg", wide_resnet_biased.build(wide_resnet_biased.Options(depth=16, widen=2, dropout=0, width=4), 7)),
])
def test_outputs_equal_the_released_class(golden, name, network):
    arrays = np.load(golden / f"{name}.npz")
    state = {key.removeprefix("state/"): torch.from_numpy(arrays[key]) for key in arrays if key.startswith("state/")}
    network.load_state_dict(state)
    x = torch.from_numpy(arrays["x"])
    with torch.inference_mode():
        network.eval()
        torch.testing.assert_close(network(x).numpy(), arrays["eval_logits"], rtol=0, atol=1e-5)
        torch.testing.assert_close(network.features(x).numpy(), arrays["eval_feat"], rtol=0, atol=1e-5)
        network.train()
        torch.testing.assert_close(network(x).numpy(), arrays["train_logits"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("model", [m for m in plugins.names("models") if plugins.spec("models", m).maps])
def test_every_network_offers_head_features_and_maps(model):
    network = plugins.load("models", model).build(plugins.options_class("models", model)(), 5).eval()
    with torch.inference_mode():
        x = torch.rand(2, 3, 32, 32)
        maps, features = network.maps(x), network.features(x)
        assert features.shape == (2, maps.shape[1]) == (2, network.head.in_features)
        torch.testing.assert_close(network(x), network.head(features))
    assert network.last_batchnorm is None or network.last_batchnorm.num_features == maps.shape[1]
    assert (maps >= 0).all()


@pytest.mark.parametrize(("model", "options", "norms"), [
    ("resnet_cifar", {"blocks": (1, 2, 1, 1), "width": 4}, 1), ("wide_resnet", {"depth": 16, "widen": 1}, 7),
    ("wide_resnet_biased", {"depth": 16, "widen": 1}, 7), ("torchvision_imagenet", {"architecture": "resnet18"}, 1),
    ("torchvision_imagenet", {"architecture": "resnet50"}, 1),
    ("torchvision_imagenet", {"architecture": "resnet18", "project": 16}, 0),
    ("torchvision_imagenet", {"architecture": "mobilenet_v2"}, 1),
])
def test_a_frozen_network_gives_the_same_stages_and_gradients_with_fewer_batch_norms(model, options, norms):
    torch.manual_seed(0)
    network = plugins.load("models", model).build(plugins.options_class("models", model)(**options), 5).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean):
                torch.nn.init.normal_(tensor)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    network, x = network.double(), torch.randn(3, 3, 32, 32, dtype=torch.float64, requires_grad=True)

    def outcome():
        stages = [stage.detach().clone() for stage in network.stages(x)]
        h = network.features(x)
        return [*stages, h.detach(), network(x).detach(), torch.autograd.grad(h.square().sum(), x)[0]]

    last = None if network.last_batchnorm is None else network.last_batchnorm.weight.clone()
    expected = outcome()
    network.fold_batchnorms()
    network.fold_batchnorms()  # once is enough
    for found, before in zip(outcome(), expected, strict=True):
        torch.testing.assert_close(found, before, rtol=1e-9, atol=1e-9 * float(before.abs().max()))
    assert sum(isinstance(m, torch.nn.BatchNorm2d) for m in network.modules()) == norms
    assert last is None or torch.equal(network.last_batchnorm.weight, last)


def test_the_biased_wide_resnet_has_the_release_s_layout():
    with torch.device("meta"):
        network = wide_resnet_biased.build(wide_resnet_biased.Options(), 10)
    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) == 40 and sum(m.bias.numel() for m in convolutions) == 5_840
    momenta = {name: m.momentum for name, m in network.named_modules() if isinstance(m, torch.nn.BatchNorm2d)}
    assert momenta.pop("bn1") == 0.9 and set(momenta.values()) == {0.1}
    block = network.layer2[0]
    assert block.conv1.stride == (1, 1) and block.conv2.stride == block.shortcut[0].stride == (2, 2)


def test_wide_resnet_wants_a_depth_of_6n_plus_4():
    with pytest.raises(OODError, match=r"depth is 41, but must be 6 n \+ 4"):
        wide_resnet.build(wide_resnet.Options(depth=41), 10)


def test_batch_of_one():
    network = densenet_bc.build(densenet_bc.Options(depth=10, growth=4), 3).eval()
    assert network(torch.rand(1, 3, 32, 32)).shape == (1, 3)
