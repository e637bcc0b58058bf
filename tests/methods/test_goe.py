"""G-OE and the outlier-exposure family: golden vectors of the release, closed forms, and what the filter pass leaves.

tests/golden/goe.npz: jiin99/Generlized-OutlierExposure at 094d880 (``filter22_*``: at 562a419) executed on random
inputs: B = 16 ID images, M = 32 outliers, 10 classes.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests import typed
from tests.checkout import ROOT
from workflow_scripts.core.errors import OODError
from workflow_scripts.methods import cross_entropy, energy_oe, goe, outlier_exposure
from workflow_scripts.methods.base import Batch
from workflow_scripts.models import wide_resnet
from workflow_scripts.scores import entropy, margin
from workflow_scripts.scores.base import Batch as ScoreBatch
from workflow_scripts.scores.base import Known

G = {key: torch.from_numpy(array) for key, array in np.load(ROOT / "tests" / "golden" / "goe.npz").items()}
BATCH = Batch(G["x_id"], G["labels"], torch.arange(16), 0, 0, 0, G["x_out"], torch.arange(32))


class Given(nn.Module):
    """Answers a pass in train mode with the rows of ``train`` and one in eval mode with those of ``looked``."""

    def __init__(self, train: Tensor, looked: Tensor):
        super().__init__()
        self.logits = nn.Parameter(train)
        self.looked = looked
        self.asked: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            assert not torch.is_grad_enabled()
            return self.looked
        self.asked.append(x)
        return self.logits


class Fixed(goe.GOE):
    """G-OE with the golden file's lambda and permutations."""

    def mixing(self, batch: Batch, count: int) -> goe.Mixing:
        assert count == 32
        return goe.Mixing(float(G["lam"]), G["idx1"], G["idx2"])


def golden_step(options: goe.Options, dtype: torch.dtype = torch.float32) -> tuple[float, Tensor, Given]:
    """(loss, gradient (80, 10), network) of one step on the golden logits."""
    network = Given(torch.cat([G[f"logits_{part}"] for part in ("id", "mix", "out")]).to(dtype),
                    G["eval_logits_out"].to(dtype))
    loss, logits = Fixed(options).loss(network, BATCH)
    assert logits.shape == (16, 10)
    loss.backward()
    return float(loss.detach().double()), network.logits.grad, network


@pytest.mark.parametrize("k", [1, 8, 20])
def test_filter_of_2024(k):
    found = goe.most_confident(goe.confidence(G["eval_logits_out"], "msp"), k)
    assert torch.equal(found.long(), G[f"filter_head_k{k}"]) and found.sum() == k
    assert torch.equal(found[:16].nonzero().flatten() + 16, G[f"filter_head_k{k}_pool_idx"].sort().values)


def test_ties_leave_together():
    found = goe.most_confident(goe.confidence(G["tie_eval_logits_out"], "msp"), 6)
    assert torch.equal(found.long(), G["filter_head_tied_k6"]) and found.sum() == 8


@pytest.mark.parametrize("kind", ["msp", "margin", "entropy"])
@pytest.mark.parametrize(("name", "rank"), [("static_{}_k4", 4), ("static_{}_k8", 8), ("adaptive_{}", None)])
def test_filters_of_2022(kind, name, rank):
    values = (goe.confidence(G[f"eval_logits_{part}"], kind) for part in ("out", "id"))
    assert torch.equal(goe.as_confident_as_id(*values, rank).long(), G[f"filter22_{name.format(kind)}"])


@pytest.mark.parametrize(("options", "loss", "grad"), [
    (goe.Options(filter="top", k=8), "goe_loss", "goe_grad"),
    (goe.Options(filter="top", k=0), "goe_loss_k0", "goe_grad_k0"),
    (goe.Options(filter="top", k=8, weight=2, oe_weight=1), "goe_loss_w2_oe1", None),
])
def test_released_step(options, loss, grad):
    found, gradient, network = golden_step(options)
    assert found == pytest.approx(float(G[loss]), abs=4e-6)
    if grad:
        torch.testing.assert_close(gradient, G[grad], rtol=0, atol=1e-7)
    asked = torch.cat(network.asked)  # one pass: ID, mixed, outliers
    assert list(asked.shape) == G["batch_shape"].tolist()
    torch.testing.assert_close(asked, torch.cat((G["x_id"], G["mixed_x"], G["x_out"])), rtol=0, atol=1e-6)


def test_released_step_in_double():
    """The release's soft labels are float32, which 5e-8 and 1e-9 allow for."""
    found, gradient, _ = golden_step(goe.Options(filter="top", k=8), torch.float64)
    assert found == pytest.approx(float(G["goe_loss_f64"]), abs=5e-8)
    torch.testing.assert_close(gradient, G["goe_grad_f64"], rtol=0, atol=1e-9)


@pytest.mark.parametrize(("weights", "part"), [
    ((0, 0), "goe_part_ce"), ((1, 0), "goe_part_mix"), ((0, 1), "goe_part_oe"),
])
def test_released_parts(weights, part):
    found, _, _ = golden_step(goe.Options(filter="top", k=8, weight=weights[0], oe_weight=weights[1]))
    rest = float(G["goe_part_ce"]) if any(weights) else 0
    assert found - rest == pytest.approx(float(G[part]), abs=4e-6)


@pytest.mark.parametrize(("method", "name", "tolerance"), [
    (outlier_exposure.build(outlier_exposure.Options(), ()), "oe", {"rel": 0, "abs": 4e-6}),
    (energy_oe.build(energy_oe.Options(), ()), "eoe", {"rel": 1e-6}),
    (cross_entropy.build(cross_entropy.Options(), ("goe.2g-2",)), "baseline", {"rel": 0, "abs": 4e-6}),
])
def test_released_comparisons(method, name, tolerance):
    network = Given(torch.cat((G["logits_id"], G["logits_out"])), G["eval_logits_out"])
    loss, _ = method.loss(network, BATCH)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(G[f"{name}_loss"]), **tolerance)
    torch.testing.assert_close(network.logits.grad, G[f"{name}_grad"], rtol=0, atol=1e-7)


def test_mixing_loss_is_masked_cross_entropy_on_mixed_labels():
    """Acceptance test 8: row by row in double, from the definition; filtered items have no gradient."""
    _, gradient, _ = golden_step(goe.Options(filter="top", k=8, weight=1, oe_weight=0), torch.float64)
    lam, first, second = float(G["lam"]), G["idx1"], G["idx2"]
    labels = G["soft_labels"].double()
    passes = torch.cat((torch.ones(16, dtype=torch.bool), G["out_mask"][:16].bool()))
    z = G["logits_mix"].double()
    for i in range(32):
        kept = bool(passes[first[i]] and passes[second[i]])
        assert kept == bool(G["mix_mask"][i])
        target = lam * labels[first[i]] + (1 - lam) * labels[second[i]]
        expected = kept * (z[i].softmax(0) * target.sum() - target) / 32
        torch.testing.assert_close(gradient[16 + i], expected, rtol=0, atol=1e-8)
        if max(first[i], second[i]) < 16:
            assert kept  # ID with ID is never left out
    assert (gradient[48:] == 0).all()


@pytest.mark.parametrize("options", [goe.Options(filter="top", k=0), goe.Options(filter="static", k=0)])
def test_no_filter_needs_no_pass(options):
    network = Given(torch.zeros(80, 10), None)
    assert Fixed(options).keep(network, BATCH).all()


def test_dividing_by_the_kept():
    values, keep = torch.tensor([1.0, 2.0, 6.0, 9.0]), torch.tensor([True, True, True, False])
    assert goe.masked_mean(values, keep, "all") == 9 / 4
    assert goe.masked_mean(values, keep, "kept") == 3
    assert goe.masked_mean(values, torch.zeros(4, dtype=torch.bool), "kept") == 0


def test_exposure_is_cross_entropy_against_uniform():
    """Acceptance test 9: the soft-label form agrees, and at constant logits the gradient is 0."""
    z = torch.randn(7, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(outlier_exposure.uniform_cross_entropy(z),
                               functional.cross_entropy(z, torch.full_like(z, 0.1), reduction="none"))
    flat = torch.full((3, 10), 1.7, requires_grad=True)
    loss = outlier_exposure.uniform_cross_entropy(flat)
    loss.sum().backward()
    torch.testing.assert_close(loss, torch.full((3,), math.log(10)))
    assert flat.grad.abs().max() < 1e-7


def small(classes: int = 10) -> nn.Module:
    torch.manual_seed(0)
    network = wide_resnet.build(wide_resnet.Options(depth=10, widen=1, width=4), classes)
    return network.to(memory_format=torch.channels_last)


def images(n_id: int = 16, n_ood: int = 32, **more: int) -> Batch:
    x = torch.randn(n_id + n_ood, 8, 8, 3, generator=torch.Generator().manual_seed(1)).permute(0, 3, 1, 2)
    at = {"seed": 0, "epoch": 0, "step": 0, **more}
    return Batch(x[:n_id], torch.arange(n_id) % 10, torch.arange(n_id), outliers=x[n_id:],
                 outlier_index=torch.arange(n_ood), **at)


@pytest.mark.parametrize(("method", "expected"), [
    (cross_entropy.build(cross_entropy.Options(), ()), math.log(10)),
    (cross_entropy.build(cross_entropy.Options(), ("goe.2g-2",)), math.log(10)),
    (outlier_exposure.build(outlier_exposure.Options(), ()), 1.5 * math.log(10)),
    (energy_oe.build(energy_oe.Options(), ()), math.log(10) + 0.1 * (25 - math.log(10)) ** 2),
    (goe.build(goe.Options(filter="top", k=0), ()), 2 * math.log(10)),
    (goe.build(goe.Options(filter="top", k=0, weight=2, oe_weight=0.25), ()), 3.25 * math.log(10)),
    # all tie with the ID images: no outlier passes, pairs of ID images do
    (goe.build(goe.Options(filter="static", k=1, divide="kept"), ()), 1.5 * math.log(10)),
])
def test_loss_at_step_0(method, expected):
    """A head of zeros gives constant logits: every term is log K, energies are -log K (hinge of -7: 0)."""
    network = small()
    nn.init.zeros_(network.fc.weight)
    loss, _ = method.loss(network, images())
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)


def test_filtered_shares_shrink_the_loss():
    """k of M outliers drop out of L_oe; of the mixtures those with a filtered part."""
    network, batch, options = small(), images(), goe.Options(filter="top", k=8)
    method = goe.build(options, ())
    keep = method.keep(network, batch)
    assert keep.sum() == 24
    mix = method.mixing(batch, 32)
    passes = torch.cat((torch.ones(16, dtype=torch.bool), keep[:16]))
    mixed = float((passes[mix.first] & passes[mix.second]).float().mean())
    method.keep = lambda network, batch: keep
    nn.init.zeros_(network.fc.weight)
    loss, _ = method.loss(network, batch)
    assert float(loss.detach()) == pytest.approx(math.log(10) * (1 + 0.5 * mixed + 0.5 * 0.75), rel=1e-5)


def test_filter_pass_changes_nothing():
    """No statistic moves, no gradient, the mode is put back, and the images keep channels-last memory."""
    network = small()
    seen = []
    network.register_forward_pre_hook(lambda module, inputs: seen.append(
        (module.training, torch.is_grad_enabled(), len(inputs[0]),
         inputs[0].is_contiguous(memory_format=torch.channels_last))))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    for options in (goe.Options(filter="top"), goe.Options(filter="static", confidence="margin")):
        goe.build(options, ()).keep(network, images())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert seen == [(False, False, 32, True), (False, False, 48, True)] and network.training
    seen.clear()
    goe.build(goe.Options(filter="top"), ()).loss(network, images())
    assert seen == [(False, False, 32, True), (True, True, 80, True)]


def test_mixing_is_random_and_repeatable():
    method = goe.build(goe.Options(), ())
    draws = [method.mixing(images(1, 1, step=step), 256) for step in range(200)]
    lam = np.array([draw.lam for draw in draws])
    assert abs(lam.mean() - 0.5) < 0.1 and abs(lam.var() - 1 / 12) < 0.02  # uniform; five standard deviations
    n_id = torch.stack([(draw.first < 128).int() + (draw.second < 128).int() for draw in draws])
    shares = [(n_id == n).float().mean() for n in (2, 1, 0)]
    assert [float(s) for s in shares] == pytest.approx([0.25, 0.5, 0.25], abs=0.02)
    again = method.mixing(images(1, 1, step=7), 256)
    assert again.lam == draws[7].lam and torch.equal(again.first, draws[7].first)
    places = ({"step": 8}, {"epoch": 1, "step": 7}, {"seed": 1, "step": 7})
    others = [method.mixing(images(1, 1, **at), 256) for at in places]
    assert len({again.lam, *(other.lam for other in others)}) == 4
    for alpha in (0.0, -1.0):
        still = goe.build(goe.Options(alpha=alpha), ()).mixing(images(1, 1), 6)
        assert still.lam == 1 and torch.equal(still(torch.arange(6.0)), still.first.float())


def test_last_batch_of_fewer_images_and_fewer_outliers_than_images():
    for batch in (images(5, 32), images(16, 4)):
        loss, logits = goe.build(goe.Options(filter="top", k=3), ()).loss(small(), batch)
        assert torch.isfinite(loss) and len(logits) == len(batch.images)


def test_contaminated_baseline_differs_by_batch_norm_alone():
    """goe.2g-2: the outliers are in no loss, but in the statistics."""
    batch, running = images(), {}
    for released in ((), ("goe.2g-2",)):
        method = cross_entropy.build(cross_entropy.Options(), released)
        assert method.outliers == bool(released)
        network = small()
        loss, logits = method.loss(network, batch)
        assert logits.shape == (16, 10)
        running[released] = network.block1.layer[0].bn1.running_mean.clone()
    network = small()
    network(torch.cat((batch.images, batch.outliers)))
    torch.testing.assert_close(running["goe.2g-2",], network.block1.layer[0].bn1.running_mean)
    assert (running["goe.2g-2",] - running[()]).abs().max() > 1e-4


@pytest.mark.parametrize(("options", "message"), [
    (goe.Options(filter="top", k=257), r"options\.k: filter 'top' .* k = 257 .*outliers\.batch_size 256"),
    (goe.Options(filter="static", k=129), r"options\.k: filter 'static' .* k = 129 .*training\.batch_size 128"),
])
def test_k_above_its_batch_is_refused(options, message):
    recipe = typed.recipe({"normalise": "per_image", "outliers": {"batch_size": 256}, "training": {
        "epochs": 1, "batch_size": 128, "lr": 0.1, "schedule": {"name": "constant"}}})
    goe.build(goe.Options(filter="top", k=256), ()).check(recipe)
    goe.build(goe.Options(filter="adaptive", k=999), ()).check(recipe)
    with pytest.raises(OODError, match=message):
        goe.build(options, ()).check(recipe)


def test_released_confidences():
    """Scores ``entropy`` and ``margin`` (shifted by 1) against the release's float32 numbers."""
    batch = ScoreBatch(logits=G["conf_logits"].numpy())
    np.testing.assert_allclose(entropy.score(entropy.Options(), Known(), None, batch), G["conf_entropy"], atol=1e-6)
    np.testing.assert_allclose(1 + margin.score(margin.Options(), Known(), None, batch), G["conf_margin"], atol=1e-6)


def test_confident_images_stay_apart():
    """Softmax of all three is 1.0 in float64."""
    batch = ScoreBatch(logits=np.array([[40.0, 0, 0], [60.0, 0, 0], [700.0, 0, 0]]))
    for module in (entropy, margin):
        assert (np.diff(module.score(module.Options(), Known(), None, batch)) > 0).all(), module.__name__
