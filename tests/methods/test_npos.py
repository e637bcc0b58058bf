"""NPOS: synthesis, prototypes, losses and training.

Golden vectors: npos @ 583c06d, `generate_outliers`, `DispLoss`, `CompLoss`, the BCE of its trainer, the schedule.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests import typed
from tests.training.test_training import RECIPE, Images, images, small
from workflow_scripts.core.errors import OODError
from workflow_scripts.methods import npos, probe, prototypes, synthesis
from workflow_scripts.methods.synthesis import Queues, Synthesis
from workflow_scripts.training.loop import Training, batches
from workflow_scripts.training.schedule import learning_rate

OPTIONS = npos.Options(start=2, queue=20, K=5, select=8, pick=2, sample_from=12, keep=3, projection=8, hidden=8,
                       snapshots=(4,))
TWO = RECIPE | {"views": 2, "training": RECIPE["training"] | {"epochs": 5, "drop_last": True}}


@pytest.fixture(scope="module")
def release(golden):
    return np.load(golden / "npos.npz")


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(array))


def filled(classes: int = 4, length: int = 30, width: int = 6, seed: int = 0) -> tuple[Queues, torch.Tensor]:
    """Queues and what is in them, (C, N, D)."""
    rows = torch.randn(classes, length, width, generator=torch.Generator().manual_seed(seed)) + 1
    queues = Queues(classes, length, width)
    queues.push(rows.flatten(0, 1), torch.arange(classes).repeat_interleave(length))
    return queues, rows


def by_hand(rows, noise, places, K, select, keep, sigma):
    """One class at a time in double: K-th distances, centres, and for each the kept candidates, farthest first."""
    unit = rows.double() / rows.double().norm(dim=1, keepdim=True)
    queued = torch.cdist(unit, unit).square().sort(1).values[:, K - 1]
    centres = queued.argsort(descending=True)[:select][places]
    kept = []
    for centre in centres:
        x = rows[centre].double() + sigma * noise.double()
        distance = torch.cdist(x / x.norm(dim=1, keepdim=True), unit).square().sort(1).values[:, K - 1]
        kept.append(distance.argsort(descending=True)[:keep])
    return queued, centres, torch.stack(kept)


# ---- synthesis -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("block", [0, 64])
@pytest.mark.parametrize("kept_mb", [0, 1024])
def test_selections_equal_the_release(release, block, kept_mb, monkeypatch):
    monkeypatch.setattr(synthesis, "BLOCK_MB", block)  # one class at a time, or all
    monkeypatch.setattr(synthesis, "KEPT_MB", kept_mb)
    K, select, pick, keep = release["cfg_K_select_pick_keep"].tolist()
    queues = Queues(4, 60, 16)
    assert (queues.products is None) == (kept_mb == 0)
    queues.push(tensor(release["queue"]).flatten(0, 1), torch.arange(4).repeat_interleave(60))
    places = torch.tensor([[list(edge).index(i) for i in picked] for edge, picked in
                           zip(release["boundary_idx"], release["picked_idx"], strict=True)])
    for misplaced, name, shape in ((False, "correct", (4, 3, 5)), (True, "released", (4, 15))):
        rule = Synthesis(K, select, pick, 24, keep, float(release["sigma"]), misplaced=misplaced)
        found = rule(queues, tensor(release["noise"]), places)
        assert found.centres.tolist() == release["picked_idx"].tolist()
        number = found.owners * 24 + found.candidates
        assert number.reshape(shape).tolist() == release[f"{name}_kept_cand_idx"].tolist()
        expected = release[f"{name}_kept"].reshape(4, 3, 5, 16)
        np.testing.assert_allclose(found.outliers.numpy(), expected, rtol=0, atol=1e-6)
        np.testing.assert_allclose(found.queued.numpy(), release["kth_dist_all"], rtol=0, atol=1e-6)
        distances = np.take_along_axis(release["cand_kth_dist"], number.reshape(4, 15).numpy(), 1)
        np.testing.assert_allclose(found.distances.reshape(4, 15).numpy(), distances, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("pick", "keep", "K"), [(3, 4, 5), (1, 1, 3), (1, 10, 30), (8, 1, 30)])
def test_brute_force_on_random_data(pick, keep, K):
    queues, rows = filled()
    rule = Synthesis(K, 8, pick, 10, keep, 0.3)
    noise, places = rule.draw(queues, torch.Generator().manual_seed(1))
    assert places.shape == (4, pick) and all(len(set(row)) == pick for row in places.tolist())
    found = rule(queues, noise, places)
    assert found.outliers.shape == (4, pick, keep, 6) and found.outliers.isfinite().all()
    for c in range(4):
        queued, centres, kept = by_hand(rows[c], noise, places[c], K, 8, keep, 0.3)
        torch.testing.assert_close(found.queued[c].double(), queued, rtol=0, atol=1e-5)
        assert found.centres[c].tolist() == centres.tolist()
        assert found.candidates[c].tolist() == kept.tolist()
        expected = rows[c][centres][:, None] + 0.3 * noise[kept]
        torch.testing.assert_close(found.outliers[c], expected, rtol=0, atol=1e-5)


def test_queues_hold_the_newest_of_each_class_and_products_follow_them():
    queues, kept = Queues(3, 7, 4), [[], [], []]
    rule = Synthesis(2, 5, 2, 6, 2, 0.1)
    generator = torch.Generator().manual_seed(0)
    for step in range(12):
        count = 40 if step == 8 else 5  # once more of a class than its queue holds
        labels = torch.randint(0, 3, (count,), generator=generator)
        rows = torch.randn(count, 4, generator=generator)
        queues.push(rows, labels)
        for label, row in zip(labels.tolist(), rows, strict=True):
            kept[label] = [*kept[label], row][-7:]
        assert queues.full() == all(len(k) == 7 for k in kept)
        if queues.full():
            found = queues.unit * queues.norm[..., None]
            for c in range(3):
                assert sorted(map(tuple, found[c].round(decimals=4).tolist())) == \
                    sorted(map(tuple, torch.stack(kept[c]).round(decimals=4).tolist()))
            rule(queues, *rule.draw(queues, generator))
            expected = queues.unit @ queues.unit.transpose(1, 2)
            torch.testing.assert_close(queues.products, expected, rtol=0, atol=1e-6)


def test_a_zero_feature_is_never_an_outlier_s_centre_nor_a_neighbour_unless_released():
    queues, rows = filled(2, 20, 5)
    queues.push(torch.zeros(3, 5), torch.tensor([0, 0, 1]))
    for wins in (False, True):
        rule = Synthesis(4, 10, 10, 6, 2, 0.1, zeros_win=wins)
        found = rule(queues, *rule.draw(queues, torch.Generator().manual_seed(0)))
        assert found.outliers.isfinite().all() and not found.queued.isnan().any()
        zero = queues.norm == 0
        share = zero.gather(1, found.centres).sum(1)
        assert share.tolist() == ([2, 1] if wins else [0, 0])
        alive = rows[0][2:].double()  # what is left of class 0
        unit = alive / alive.norm(dim=1, keepdim=True)
        expected = torch.cdist(unit, unit).square().sort(1).values[:, 3]
        torch.testing.assert_close(found.queued[0][~zero[0]].double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("classes", "share"), [(10, 0.088), (100, 0.898)])
def test_b1_picks_zero_vectors_as_often_as_the_release(classes, share):
    """An epoch of CIFAR: 195 steps of 512 samples, queues of 1,000; spec: 8.8 % (CIFAR-10) and 89.8 % (CIFAR-100)."""
    shown = 3  # classes looked at
    queues = Queues(shown, 1000, 4)
    generator = torch.Generator().manual_seed(0)
    queues.push(torch.randn(1000 * shown, 4, generator=generator), torch.arange(shown).repeat(1000))
    queues.reset()
    assert queues.full()  # the counters go on
    rule = Synthesis(300, 200, 2, 1, 1, 0.1, zeros_win=True)
    order = torch.randperm(50_000, generator=generator)[:195 * 256].view(195, 256) % classes
    shares = []
    for step, labels in enumerate(order):
        here = labels[labels < shown].repeat(2)
        queues.push(torch.randn(len(here), 4, generator=generator), here)
        if step % 5 == 2 or (step < 20 and classes == 10):
            queues.refresh()
            _, edge = rule.boundary(queues.products, queues.norm)
            weight = 1 if step < 20 and classes == 10 else 5
            shares += [float((queues.norm == 0).gather(1, edge).float().mean())] * weight
    assert np.mean(shares) == pytest.approx(share, abs=0.015)


def test_b2_keeps_points_that_are_not_the_farthest():
    queues, _ = filled(10, 50, 32)
    rules = [Synthesis(10, 20, 2, 60, 5, 0.5, misplaced=wrong) for wrong in (False, True)]
    draws = rules[0].draw(queues, torch.Generator().manual_seed(0))
    right, wrong = (rule(queues, *draws).distances.mean() for rule in rules)
    assert wrong < right - 0.005


# ---- prototypes and losses -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("case", "ABC")
@pytest.mark.parametrize(("suffix", "tolerance"), [("", 2e-5), ("_f64", 1e-9)])
def test_losses_and_gradients_equal_the_release(release, case, suffix, tolerance):
    def array(name, suffix=suffix):
        return release[f"loss{case}_{name}{suffix}"]

    kind = torch.float64 if suffix else torch.float32
    momentum, temperature = array("proto_m_temp", "").tolist()
    labels = tensor(array("labels", ""))
    raw = tensor(array("raw", "")).to(kind).requires_grad_()
    z = functional.normalize(raw, dim=1)
    start = prototypes.class_directions(tensor(array("init_feats", "")).to(kind), tensor(array("init_labels", "")), 6)
    torch.testing.assert_close(start.numpy(), array("proto_init", "").astype(start.numpy().dtype), rtol=0, atol=1e-6)
    moved = prototypes.follow(tensor(array("proto_init", "")).to(kind), z, labels, momentum)
    disp = prototypes.dispersion(moved, temperature)
    comp = prototypes.compactness(z, moved.detach(), labels, temperature)
    close = {"rtol": 0, "atol": tolerance}
    np.testing.assert_allclose(moved.detach().numpy(), array("proto_after"), **close)
    np.testing.assert_allclose([disp.item(), comp.item()], [array("disp_loss"), array("comp_loss")], **close)
    for loss, by, name in ((disp, z, "disp_z"), (comp, z, "comp_z"), (0.5 * disp + comp, raw, "total_raw")):
        gradient, = torch.autograd.grad(loss, by, retain_graph=True)
        np.testing.assert_allclose(gradient.numpy(), array(f"grad_{name}"), **close)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.95])
def test_prototypes_move_for_one_image_after_the_other(momentum):
    generator = torch.Generator().manual_seed(0)
    z = functional.normalize(torch.randn(64, 5, dtype=torch.float64, generator=generator), dim=1)
    labels = torch.randint(0, 6, (64,), generator=generator)  # and class 6 has none
    start = functional.normalize(torch.randn(7, 5, dtype=torch.float64, generator=generator), dim=1)
    expected = start.clone()
    for row, label in zip(z, labels, strict=True):
        expected[label] = functional.normalize(momentum * expected[label] + (1 - momentum) * row, dim=0)
    found = prototypes.follow(start, z, labels, momentum)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert torch.equal(found[6], start[6])


def test_a_low_temperature_is_finite_in_single_precision(release):
    z = functional.normalize(tensor(release["lossA_raw"]), dim=1)
    moved = prototypes.follow(tensor(release["lossA_proto_init"]), z, tensor(release["lossA_labels"]), 0.95)
    assert np.isnan(release["nan_disp_loss_temp0p01_f32"])
    expected = float(release["disp_loss_temp0p01_f64"])
    assert prototypes.dispersion(moved, 0.01).item() == pytest.approx(expected, abs=1e-4)


def test_open_risk_equals_the_release_and_id_is_one(release):
    id_logits, ood_logits = (tensor(release[f"phi_{k}"]).requires_grad_() for k in ("id", "outlier"))
    loss = npos.open_risk(id_logits, ood_logits)
    loss.backward()
    assert loss.item() == pytest.approx(float(release["bce"]), abs=1e-6)
    np.testing.assert_allclose(id_logits.grad.numpy(), release["bce_grad_id"], atol=1e-7)
    np.testing.assert_allclose(ood_logits.grad.numpy(), release["bce_grad_outlier"], atol=1e-7)
    assert id_logits.grad.max() < 0 < ood_logits.grad.min()  # ID is drawn up
    even = npos.open_risk(id_logits, ood_logits.repeat(10, 1), balanced=True)
    assert even.item() == pytest.approx(npos.open_risk(id_logits, ood_logits, balanced=True).item(), abs=1e-6)


def test_schedule_of_the_release(release):
    cosine = {"name": "cosine_epochs", "milestones": [], "gamma": 0.1, "floor": 0.001}
    rates = [learning_rate(0.5, typed.schedule(cosine), epoch * 195 + 100, 195, 500) for epoch in range(500)]
    np.testing.assert_allclose(rates, release["lr_cosine_epoch0_499"][:, 0], rtol=1e-12)


def test_warm_up_is_positive_from_the_first_step_unless_released():
    warm = {"name": "cosine_epochs", "milestones": [], "gamma": 0.1, "floor": 0.001,
            "warmup": {"epochs": 10, "start": 0.02}}
    rates = [learning_rate(0.5, typed.schedule(warm), step, 10, 500) for step in range(200)]
    assert rates[0] == 0.01 and min(rates) == rates[0] and (np.diff(rates[:100]) > 0).all()
    assert rates[100] == pytest.approx(learning_rate(0.5, typed.schedule(warm | {"warmup": None}), 100, 10, 500))
    late = [learning_rate(0.5, typed.schedule(warm), step, 10, 500, zero_based=True) for step in range(200)]
    assert late[0] == pytest.approx(-0.039, abs=5e-4)  # spec, B13
    assert late[10] == pytest.approx(0.01)


# ---- training --------------------------------------------------------------------------------------------------------

def train(options=OPTIONS, released=(), recipe=TWO, data=None, **more):
    torch.manual_seed(0)
    network, method = small(), npos.build(options, released)
    training = Training(network, method, data or images(), typed.recipe(recipe), 0, released=released, **more)
    return training, network, method


def test_training_learns_and_its_head_is_a_probe():
    training, network, method = train()
    before = network.fc.weight.clone()
    history = training.run(report=lambda line: None)
    assert history[-1]["accuracy"] > 0.9 and method.queues.full()
    assert not torch.equal(before, network.fc.weight)
    network.eval()
    x, labels = next(iter(training.eval_data().train()))
    assert (network(x).argmax(1) == labels).float().mean() > 0.9
    record = method.record()
    assert record["snapshot_4/outliers"].shape == (3 * 2 * 3, 32) and record["snapshot_4/features"].shape == (60, 32)
    # what is kept lies farther out than what it was drawn around
    assert record["snapshot_4/outlier_distances"].mean() > record["snapshot_4/distances"].mean()


def test_without_weight_it_is_cider():
    training, _, method = train(npos.Options(weight=0, projection=8))
    assert not hasattr(method, "queues") and len(method.parameter_groups(small())) == 1
    assert training.run(2, report=lambda line: None)


def test_outliers_reach_the_loss_from_their_epoch_on_only():
    def losses(weight):
        training, _, _ = train(npos.Options(**(vars(OPTIONS) | {"weight": weight, "snapshots": ()})))
        return [row["loss"] for row in training.run(report=lambda line: None)]

    light, heavy = losses(0.01), losses(5.0)
    assert light[:2] == heavy[:2] and heavy[2] > light[2]


def test_defects_change_the_run_and_nothing_else_does():
    def weights(released, **more):
        training, network, _ = train(npos.Options(**(vars(OPTIONS) | {"start": 1})), released, **more)
        training.run(report=lambda line: None)
        return torch.cat([p.flatten() for p in network.parameters()])

    corrected = weights(())
    assert torch.equal(corrected, weights(()))
    for defect in ("npos.B1", "npos.B2", "npos.B5"):
        assert not torch.equal(corrected, weights((defect,)))
    other = Images(images().pixels.flip(1), images().labels)
    assert not torch.equal(corrected, weights(("npos.B12",), test=other))


def test_phi_learns_more_slowly_unless_released():
    for released, factor in (((), 0.1), (("npos.B5",), 1.0)):
        training, _, _ = train(released=released)
        assert training.bases == pytest.approx([0.1, 0.1 * factor])


def test_only_named_stages_are_trained():
    training, network, _ = train(npos.Options(**(vars(OPTIONS) | {"train": ("layer4",)})))
    before = {k: v.clone() for k, v in network.named_parameters()}
    training.run(3, report=lambda line: None)
    changed = {k.split(".")[0] for k, v in network.named_parameters() if not torch.equal(before[k], v)}
    assert changed == {"layer4", "fc"}  # the head by its probe
    with pytest.raises(OODError, match=r"options.train: no tensor begins with 'layer9'; the network has bn1, conv1"):
        train(npos.Options(train=("layer9",), weight=0))


def test_two_views_are_two_augmentations_of_the_same_images():
    data = images(48)
    first = next(batches(data, typed.recipe(TWO), 0, 0))
    assert first.second is not None and not torch.equal(first.images, first.second)
    alone = next(batches(data, typed.recipe(TWO | {"views": 1}), 0, 0))
    assert alone.second is None and torch.equal(alone.images, first.images)
    still = next(batches(data, typed.recipe(TWO | {"augment": []}), 0, 0))
    assert torch.equal(still.images, still.second)


@pytest.mark.parametrize(("change", "message"), [
    ({"K": 21}, r"options.K: 21 is more than options.queue \(20\)"),
    ({"select": 21}, r"options.select: 21 is more than options.queue"),
    ({"pick": 9}, r"options.pick: 9 is more than options.select \(8\)"),
    ({"keep": 13}, r"options.keep: 13 is more than options.sample_from \(12\)"),
    ({"start": 5}, r"options.start: outliers come after epoch 5, but training.epochs is 5"),
])
def test_sizes_that_do_not_fit_are_refused(change, message):
    with pytest.raises(OODError, match=message):
        train(npos.Options(**(vars(OPTIONS) | change)))


def test_a_class_that_never_fills_its_queue_is_named():
    data = images(96)
    rare = torch.cat((torch.arange(96)[data.labels != 1], torch.arange(96)[data.labels == 1][:2]))
    few = Images(data.pixels[rare], data.labels[rare])
    training, _, _ = train(data=few)
    with pytest.raises(OODError, match=r"class 1 .* has 2 train images in 2 view\(s\).* full after 5 epochs.* is 5"):
        training.run(report=lambda line: None)
    none = Images(data.pixels[data.labels != 2], data.labels[data.labels != 2])
    training, _, _ = train(data=none)
    with pytest.raises(OODError, match=r"class 2 .* has no train image \(1 of 3 classes"):
        training.run(report=lambda line: None)


def test_features_that_are_not_finite_stop_the_run_and_name_the_step():
    training, network, _ = train()
    step = training._step

    def poisoned(batch):
        if training.done == 7:
            with torch.no_grad():
                network.layer4[0].bn2.bias[0] = math.nan
        step(batch)

    training._step = poisoned
    with pytest.raises(OODError, match=r"features are not finite in step 8 \(epoch 2\)"):
        training.run(report=lambda line: None)


def test_the_probe_is_logistic_regression():
    from sklearn.linear_model import LogisticRegression
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (400,), generator=generator)
    features = 3 * torch.randn(4, 10, generator=generator)[labels] + 4 * torch.randn(400, 10, generator=generator) + 50
    weight, bias = probe.fit(features, labels, 4)
    centred = (features - features.mean(0)).numpy()
    scale = np.linalg.norm(centred, axis=1).mean()
    reference = LogisticRegression(C=1 / (probe.L2 * 400), max_iter=5000, tol=1e-10).fit(centred / scale, labels)
    found = (features @ weight.T + bias).softmax(1).numpy()
    np.testing.assert_allclose(found, reference.predict_proba(centred / scale), atol=2e-3)
    with pytest.raises(OODError, match="features of train image 3 are not finite"):
        probe.fit(features.index_fill(0, torch.tensor([3]), math.nan), labels, 4)
