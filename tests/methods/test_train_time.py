"""LogitNorm, T2FNorm, ISH, MixOE and RotPred: each loss against a form that is written out image by image."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests import typed
from tests.methods.test_resample import RECIPE, pool
from tests.training.test_training import images, small
from workflow_scripts.core import plugins
from workflow_scripts.core.errors import OODError
from workflow_scripts.methods import ish, logitnorm, mixoe, rotpred, t2fnorm
from workflow_scripts.methods.base import Batch, EvalData, Sizes
from workflow_scripts.training.loop import Training

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ("ish", "logitnorm", "mixoe", "rotpred", "t2fnorm")
SIZES = Sizes(seed=0, epochs=1, steps=1, images=7, device=torch.device("cpu"))
LEARNING = RECIPE | {"outliers": {"batch_size": 8, "order": "shuffled"}, "augment": [],
                     "training": RECIPE["training"] | {"epochs": 6, "lr": 0.02}}


class Flat(nn.Module):
    """Penultimate features and a head, in double precision, without batch norm."""

    def __init__(self, width: int = 20, classes: int = 4):
        super().__init__()
        torch.manual_seed(1)
        self.body, self.head = nn.Linear(3 * 6 * 6, width).double(), nn.Linear(width, classes).double()

    def features(self, x: Tensor) -> Tensor:
        return self.body(x.flatten(1)).relu()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


def batch(count: int = 7, outliers: int = 7, step: int = 0) -> Batch:
    random = torch.Generator().manual_seed(2)
    x, other = (torch.randn(n, 3, 6, 6, dtype=torch.float64, generator=random) for n in (count, outliers))
    return Batch(x, torch.arange(count) % 4, torch.arange(count), 3, 1, step, other, torch.arange(outliers))


def cross_entropy(logits: np.ndarray, target: np.ndarray) -> float:
    """Of one image: minus the sum of target times the logarithm of the softmax."""
    whole = sum(math.exp(z) for z in logits)
    return -sum(t * math.log(math.exp(z) / whole) for z, t in zip(logits, target, strict=True))


def one_hot(label: int, classes: int = 4) -> np.ndarray:
    return np.eye(classes)[int(label)]


def parts(network: Flat, x: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Penultimate features and logits, in NumPy."""
    with torch.no_grad():
        return network.features(x).numpy(), network(x).numpy()


def gradients(network: Flat, loss: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*network.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


# -- LogitNorm --------------------------------------------------------------------------------------------------------

def test_logitnorm_is_the_cross_entropy_of_logits_of_length_one_over_tau():
    network, given = Flat(), batch()
    loss, logits = logitnorm.build(logitnorm.Options(0.3), ()).loss(network, given)
    _, z = parts(network, given.images)
    expected = np.mean([cross_entropy(row / math.sqrt(sum(v * v for v in row)) / 0.3, one_hot(label))
                        for row, label in zip(z, given.labels, strict=True)])
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    assert np.array_equal(logits.detach().numpy(), z)


def test_the_length_of_logits_has_no_part_in_logitnorms_gradient():
    z = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.arange(5) % 4
    loss = nn.functional.cross_entropy(logitnorm.of_one_length(z, 0.04), labels)
    (grad,) = torch.autograd.grad(loss, z)
    assert grad.abs().max() > 0.01 and ((grad * z).sum(1).abs() < 1e-5).all()
    again = nn.functional.cross_entropy(logitnorm.of_one_length(10 * z, 0.04), labels)
    assert again.item() == pytest.approx(loss.item(), rel=1e-5)


def test_logitnorm_refuses_a_head_of_zeros():
    network, method = Flat(), logitnorm.build(logitnorm.Options(), ())
    method.setup(network, SIZES)
    nn.init.zeros_(network.head.weight)
    method.setup(network, SIZES)  # its bias gives the logits a direction
    nn.init.zeros_(network.head.bias)
    with pytest.raises(OODError, match="head starts at zero, .*; give the recipe a parent"):
        method.setup(network, SIZES)


# -- T2FNorm ----------------------------------------------------------------------------------------------------------

def test_t2fnorm_is_the_cross_entropy_of_features_of_length_one_over_tau():
    network, given = Flat(), batch()
    loss, logits = t2fnorm.build(t2fnorm.Options(0.2), ()).loss(network, given)
    h, _ = parts(network, given.images)
    weight, bias = network.head.weight.detach().numpy(), network.head.bias.detach().numpy()
    z = [weight @ (row / math.sqrt(sum(v * v for v in row)) / 0.2) + bias for row in h]
    expected = np.mean([cross_entropy(row, one_hot(label)) for row, label in zip(z, given.labels, strict=True)])
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    assert np.allclose(logits.detach().numpy(), z, atol=1e-12)


def test_t2fnorms_network_scores_features_of_their_own_length():
    network, given, method = Flat(), batch(), t2fnorm.build(t2fnorm.Options(0.2), ())
    h, _ = parts(network, given.images)
    weight, bias = network.head.weight.detach().numpy().copy(), network.head.bias.detach().numpy()
    before = method.predict(network, given.images).detach()
    method.finish(network, EvalData(given.labels, lambda: iter(()), lambda: iter(())))
    after_h, after = parts(network, given.images)
    assert np.allclose(after, h / 0.2 @ weight.T + bias, atol=1e-12) and np.allclose(after, before, atol=1e-12)
    assert np.array_equal(after_h, h)


def test_t2fnorm_puts_the_temperature_into_the_head_once(monkeypatch):
    def head() -> Tensor:
        network = small()
        Training(network, t2fnorm.build(t2fnorm.Options(), ()), images(), typed.recipe(LEARNING), 0).run(
            4, report=lambda line: None)
        return network.head.weight.detach()

    written = head()
    monkeypatch.setattr(t2fnorm.T2FNorm, "finish", lambda self, network, eval_data: None)
    assert torch.equal(written, head() / 0.1)


# -- ISH --------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("p", [0.0, 50.0, 85.0, 99.0])
@pytest.mark.parametrize("prune", [True, False])
def test_ish_changes_the_gradient_of_the_heads_weight_alone(p, prune):
    network, given = Flat(), batch()
    loss, logits = ish.build(ish.Options(p, prune), ()).loss(network, given)
    plain = nn.functional.cross_entropy(network(given.images), given.labels)
    assert torch.equal(logits, network(given.images)) and torch.equal(loss, plain)
    found, usual = gradients(network, loss), gradients(network, plain)
    for name in ("body.weight", "body.bias", "head.bias"):
        assert torch.allclose(found[name], usual[name], rtol=0, atol=1e-12)

    h, z = parts(network, given.images)
    expected = np.zeros((4, 20))
    for feature, row, label in zip(h, z, given.labels, strict=True):
        softmax = np.exp(row) / np.exp(row).sum()
        kept = sorted(range(20), key=lambda place, feature=feature: -feature[place])[:max(1, int(20 * (100 - p) / 100))]
        ratio = sum(feature) / sum(feature[place] for place in kept)
        for place in range(20):
            if place in kept or not prune:
                expected[:, place] += (softmax - one_hot(label)) / 7 * feature[place] * math.exp(ratio)
    assert np.allclose(found["head.weight"].numpy(), expected, rtol=0, atol=1e-6)
    assert not np.allclose(found["head.weight"].numpy(), usual["head.weight"].numpy(), atol=1e-3)


def test_ish_keeps_as_many_values_as_the_release_and_an_empty_feature_is_finite():
    h = torch.rand(3, 512) + 0.1
    h[1] = 0
    found = ish.shaped(h, 85.0, True)
    assert (found != 0).sum(1).tolist() == [76, 0, 76]
    assert torch.equal(ish.shaped(h, 85.0, False)[1], h[1])


@pytest.mark.parametrize(("given", "expected"), [(5e-5, [5e-4, 5e-5]), (0.0, [5e-4, 0.0]), (None, [5e-4, 5e-4])])
def test_ishs_head_has_a_weight_decay_of_its_own(given, expected):
    network = small()
    training = Training(network, ish.build(ish.Options(head_weight_decay=given), ()), images(), typed.recipe(RECIPE), 0)
    groups = training.optimiser.param_groups
    assert [group["weight_decay"] for group in groups] == expected
    assert [id(p) for p in groups[1]["params"]] == [id(p) for p in network.head.parameters()]
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))


# -- MixOE ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("mix", ["linear", "cutmix"])
@pytest.mark.parametrize("outliers", [7, 3])
def test_mixoe_has_targets_between_the_class_and_all_classes(mix, outliers):
    for step in range(5):
        network, given = Flat(), batch(outliers=outliers, step=step)
        method = mixoe.build(mixoe.Options(mix, 2.0, 3.0), ())
        loss, logits = method.loss(network, given)
        mixtures, lam = method.mixed(given)
        expected = 0.0
        for i, label in enumerate(given.labels):
            x, other = given.images[i].numpy(), given.outliers[i % outliers].numpy()
            if mix == "linear":
                assert np.allclose(mixtures[i].numpy(), lam * x + (1 - lam) * other, rtol=0, atol=1e-12)
            else:
                theirs = (mixtures[i].numpy() == other).all(0)
                assert ((mixtures[i].numpy() == x).all(0) == ~theirs).all() and 1 - theirs.mean() == pytest.approx(lam)
                rows, columns = theirs.any(1), theirs.any(0)
                assert np.array_equal(theirs, np.outer(rows, columns)) and (np.diff(np.flatnonzero(rows)) == 1).all()
                assert (np.diff(np.flatnonzero(columns)) == 1).all()
            target = lam * one_hot(label) + (1 - lam) * np.full(4, 0.25)
            expected += (cross_entropy(parts(network, given.images)[1][i], one_hot(label))
                         + 3 * cross_entropy(parts(network, mixtures)[1][i], target)) / 7
        assert loss.item() == pytest.approx(expected, abs=1e-6)
        assert torch.equal(logits, network(given.images))


def test_mixoes_lambda_is_of_the_beta_distribution_and_of_seed_epoch_and_step():
    method = mixoe.build(mixoe.Options(alpha=2.0), ())
    found = np.array([method.mixed(batch(step=step))[1] for step in range(2000)])
    assert abs(found.mean() - 0.5) < 0.02 and abs(found.var() - 0.05) < 0.005  # alpha = 2: variance 1 / 20
    assert method.mixed(batch(step=4))[1] == found[4]
    assert method.mixed(dataclasses.replace(batch(step=4), seed=4))[1] != found[4]


def test_cutmix_covers_the_share_that_is_not_lambda_but_for_what_the_border_cuts_off():
    rng = np.random.default_rng(0)
    for _ in range(200):
        lam = float(rng.random())
        rows, columns = mixoe.rectangle(rng, 32, 24, lam)
        height, width = rows.stop - rows.start, columns.stop - columns.start
        assert 0 <= rows.start <= rows.stop <= 32 and 0 <= columns.start <= columns.stop <= 24
        assert height <= 32 * math.sqrt(1 - lam) and width <= 24 * math.sqrt(1 - lam)
    assert mixoe.rectangle(rng, 32, 24, 1.0)[0] in [slice(i, i) for i in range(32)]


def test_mixoe_without_mixtures_is_cross_entropy():
    network, given = Flat(), batch()
    loss, _ = mixoe.build(mixoe.Options(beta=0.0), ()).loss(network, given)
    assert loss.item() == pytest.approx(nn.functional.cross_entropy(network(given.images), given.labels).item())


# -- RotPred ----------------------------------------------------------------------------------------------------------

def rotation_method(weight: float, network: Flat) -> rotpred.RotPred:
    method = rotpred.build(rotpred.Options(weight), ())
    method.setup(network, SIZES)
    return method.double()


def test_rotpred_adds_the_cross_entropy_of_four_rotations():
    network, given = Flat(), batch()
    method = rotation_method(0.7, network)
    loss, logits = method.loss(network, given)
    weight, bias = (p.detach().numpy() for p in (method.rotation.weight, method.rotation.bias))
    expected = 0.0
    for x, label in zip(given.images, given.labels, strict=True):
        expected += cross_entropy(parts(network, x[None])[1][0], one_hot(label)) / 7
        for turns in range(4):
            turned = torch.from_numpy(np.rot90(x.numpy(), turns, (1, 2)).copy())[None]
            expected += 0.7 * cross_entropy(weight @ parts(network, turned)[0][0] + bias, one_hot(turns)) / 28
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    assert torch.allclose(logits, network(given.images), rtol=0, atol=1e-12)
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().max() > 1e-4 for p in [*network.parameters(), *method.parameters()])


def test_rotpreds_head_is_trained_and_in_the_record():
    network = small()
    method = rotpred.build(rotpred.Options(), ())
    training = Training(network, method, images(), typed.recipe(LEARNING), 0)
    before = method.rotation.weight.detach().clone()
    training.run(4, report=lambda line: None)
    record = method.record()
    assert {name: tuple(value.shape) for name, value in record.items()} == {
        "rotation/weight": (4, network.head.in_features), "rotation/bias": (4,)}
    assert not torch.equal(record["rotation/weight"], before)


def test_rotpred_refuses_images_that_are_not_square():
    with pytest.raises(OODError, match="images of 6x8 pixels, expected square ones"):
        rotpred.rotated(torch.zeros(1, 3, 6, 8))


# -- all of them ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("name", "options", "message"), [
    ("logitnorm", {"temperature": 0.0}, "options.temperature: Input should be greater than 0"),
    ("logitnorm", {"tau": 0.1}, "options.tau: unknown key 'tau'. Allowed here: temperature"),
    ("t2fnorm", {"temperature": -1.0}, "options.temperature: Input should be greater than 0"),
    ("ish", {"p": 100.0}, "options.p: Input should be less than 100"),
    ("ish", {"head_weight_decay": -1.0}, "options.head_weight_decay: Input should be greater than or equal to 0"),
    ("mixoe", {"mix": "mixup"}, "options.mix: Input should be 'linear' or 'cutmix'"),
    ("mixoe", {"alpha": 0.0}, "options.alpha: Input should be greater than 0"),
    ("rotpred", {"wieght": 1.0}, "options.wieght: unknown key 'wieght'; did you mean 'weight'"),
])
def test_options_are_checked(name, options, message):
    with pytest.raises(OODError, match=message):
        plugins.parse_options("methods", name, options, "options")


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_and_gives_the_same_bits_twice(name):
    def end() -> tuple[list[dict[str, float]], dict[str, Any]]:
        network = small()
        options = plugins.parse_options("methods", name, {}, name)
        method = plugins.load("methods", name).build(options, ())
        outliers = pool() if method.outliers else None
        rate = 0.002 if name == "logitnorm" else 0.02  # its logits are multiplied by 25
        recipe = typed.recipe(LEARNING | {"training": LEARNING["training"] | {"lr": rate}})
        history = Training(network, method, images(), recipe, 0, outliers).run(report=lambda line: None)
        return history, {**network.state_dict(), **method.state_dict()}

    (history, one), (_, other) = end(), end()
    assert history[-1]["accuracy"] > 0.9 > history[0]["accuracy"] and history[-1]["loss"] < history[0]["loss"]
    assert one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())
