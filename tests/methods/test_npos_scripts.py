"""What one of NPOS's scripts alone has: ImageNet-100's losses, and the rate of CLIP's phi."""

from __future__ import annotations

import torch
from torch.nn import functional

from tests.methods.test_npos import OPTIONS, train
from workflow_scripts.core import plugins
from workflow_scripts.methods import npos


def test_phi_keeps_its_rate_on_clip():
    """The released CLIP script scales its groups by one schedule (MultiStepLR), which B5's trainers do not use."""
    assert "npos.B5" not in plugins.spec("methods", "npos_clip").switches
    assert {"npos.B2", "npos.B14"} <= {*plugins.spec("methods", "npos_clip").switches}


def test_without_a_projection_head_the_losses_see_the_unit_features():
    """train_im100.py: F.normalize(features) into both losses; one group of parameters when the rates are one."""
    options = npos.Options(**(vars(OPTIONS) | {"projection": None, "phi_lr": 1.0}))
    training, network, _ = train(options)
    method = training.method
    h = torch.rand(6, network.head.in_features)
    assert torch.equal(method.project(h), functional.normalize(h, dim=1))
    assert method.prototypes.shape == (3, network.head.in_features) and not list(method.head.parameters())
    assert training.bases == [0.1, 0.1]
    training.run(report=lambda line: None)
    assert all(p.grad is not None for p in method.phi.parameters())


def test_as_released_the_loss_of_outliers_is_never_added():
    """B11: the same run as without outliers, bit for bit."""
    def weights(released=(), **more):
        options = npos.Options(**(vars(OPTIONS) | {"start": 1, "snapshots": (), **more}))
        training, network, _ = train(options, released)
        training.run(report=lambda line: None)
        return torch.cat([p.flatten() for p in network.parameters()])

    assert torch.equal(weights(("npos.B11",)), weights(weight=0.0))
    assert not torch.equal(weights(("npos.B11",)), weights())
