"""Where the convolutions of a training start."""

from __future__ import annotations

import json

import pytest
import torch

from tests.network_data import SECTION, write_all
from tests.training.test_training import RECIPE
from workflow_scripts.models import resnet_cifar
from workflow_scripts.models.base import initialise_convolutions
from workflow_scripts.networks import checkpoint
from workflow_scripts.stages import train_network


@pytest.mark.parametrize(("how", "expected"), [(None, 0.0240), ("fan_out", 0.0589), (0.354, 0.354)])
def test_convolutions_start_as_the_recipe_says(how, expected):
    """layer1 of ResNet-18: PyTorch's own, sqrt(2 / 576) of NPOS and HIMPLoS, sqrt(2 / 16) of HIMPLoS's DenseNet."""
    torch.manual_seed(0)
    network = resnet_cifar.build(resnet_cifar.Options(), 10)
    others = {k: v.clone() for k, v in network.state_dict().items() if v.dim() != 4}
    if how is not None:
        initialise_convolutions(network, how)
    for name, weight in network.layer1.named_parameters():
        if weight.dim() == 4:
            assert float(weight.detach().std()) == pytest.approx(expected, rel=0.02), name
            assert abs(float(weight.detach().mean())) < 0.02 * expected
    assert all(torch.equal(network.state_dict()[name], value) for name, value in others.items())


def test_the_stage_starts_from_the_recipes_weights(tmp_path):
    """One step with next to no learning rate: what was drawn is what is written."""
    write_all(tmp_path)

    def stem(**more):
        recipe = RECIPE | {"method": "cross_entropy", "training": RECIPE["training"] | {"lr": 1e-12}, **more}
        section = {"network": SECTION, "recipe": recipe, "released": [], "steps": 1}
        out = tmp_path / "out.pt"
        train_network.main(["--config", json.dumps(section), "--data", str(tmp_path / "rows.train.h5"), "--seed", "0",
                            "--device", "cpu", "--out", str(out)])
        return checkpoint.read(out)["state_dict"]["layer4.0.conv2.weight"]

    own, fan_out, again = stem(), stem(initialisation="fan_out"), stem(initialisation="fan_out")
    assert torch.equal(fan_out, again)  # a function of the seed
    assert float(fan_out.std()) == pytest.approx((2 / (9 * 32)) ** 0.5, rel=0.05)
    assert float(own.std()) == pytest.approx((1 / (3 * 9 * 32)) ** 0.5, rel=0.05)
