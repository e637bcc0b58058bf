"""Scores that run the network (ODIN, Mahalanobis ensemble) and the stage that computes them."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from pytorch_ood import detector
from torch import nn
from torch.nn import functional

from tests.network_data import CONFIG, images, network, write_all, write_store
from workflow_scripts.core import plugins
from workflow_scripts.core.errors import OODError
from workflow_scripts.metrics.ood import auroc, curve
from workflow_scripts.models import densenet_bc
from workflow_scripts.models.base import Classifier
from workflow_scripts.scores import mahalanobis, mahalanobis_ensemble, odin, temperature
from workflow_scripts.scores.base import Batch, Known, Statistics
from workflow_scripts.stages import score_network
from workflow_scripts.stages.sections.score_network import ScoreNetwork

ON_NETWORK = [n for n in plugins.names("scores") if "network" in plugins.spec("scores", n).needs]
ON_MAPS = [n for n in ON_NETWORK if n not in ("gl_mcm", "neglabel")]  # which are of CLIP
SMALL = {"mahalanobis_ensemble": {"held_out": 60, "magnitudes": (0.0, 0.01)}}


def test_network_scores_declare_what_they_need():
    assert set(ON_NETWORK) >= {"odin", "mahalanobis_ensemble"}
    for name in ON_NETWORK:
        module = plugins.load("scores", name)
        assert plugins.spec("scores", name) == module.SPEC
        assert all(text and default != "required" for _, _, default, text in plugins.fields("scores", name))


# -- ODIN ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def released(golden_odin):
    net = densenet_bc.build(densenet_bc.Options(depth=10, growth=4), 5)
    net.load_state_dict({key.removeprefix("state/"): torch.from_numpy(golden_odin[key]) for key in golden_odin
                         if key.startswith("state/")})
    return net.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def golden_odin(golden):
    return np.load(golden / "odin.npz")


CASES = [("T1000_eps0p004", {}), ("T10_eps0p05", {"temperature": 10, "epsilon": 0.05})]


@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float32, 2e-8), (torch.float64, 1e-12)])
def test_odin_equals_the_release(released, golden_odin, name, options, kind, tolerance):
    """sunzh18/HIMPLoS at 7a01249 in double; T = 1000 leaves 1e-5 of signal, so float32 must be far below that."""
    net, x = released.to(kind), torch.from_numpy(golden_odin["x"]).to(kind)
    scores = odin.score(odin.Options(**options), Known(), None, net, x)
    assert scores.dtype == torch.float64
    np.testing.assert_allclose(scores.exp(), golden_odin[name], rtol=0, atol=tolerance)
    net.float()


@pytest.mark.parametrize("options", [{}, {"temperature": 2, "epsilon": 0.01}])
def test_odin_agrees_with_pytorch_ood(released, golden_odin, options):
    """No gradient here is exactly zero, where the two signs differ."""
    options, x = odin.Options(**options), torch.from_numpy(golden_odin["x"])
    peer = detector.ODIN(released, eps=options.epsilon, temperature=options.temperature)
    np.testing.assert_allclose(odin.score(options, Known(), None, released, x).exp(), -peer.predict(x), atol=1e-5)


def test_a_step_by_std_agrees_with_pytorch_ood(released, golden_odin):
    std, x = (0.25, 0.2, 0.3), torch.from_numpy(golden_odin["x"])
    peer = detector.ODIN(released, eps=0.01, temperature=10, norm_std=std)
    found = odin.score(odin.Options(10.0, 0.01, by_std=True), Known(input_std=std), None, released, x)
    np.testing.assert_allclose(found.exp(), -peer.predict(x), atol=1e-6)
    plain = odin.score(odin.Options(10.0, 0.01), Known(input_std=std), None, released, x)
    assert (found - plain).abs().max() > 1e-4


def test_a_step_by_std_needs_a_std_of_each_channel():
    section = ScoreNetwork.of(**{**CONFIG, "score": "odin", "sets": [], "options": {"by_std": True},
                                 "normalise": "per_image"})
    with pytest.raises(OODError, match="divides by the standard deviation of each channel, and normalise is per_image"):
        score_network.prepared(section, section.options, network(), 1, None, torch.device("cpu"))


@pytest.mark.data
def test_odin_equals_its_own_released_scores():
    """ShiyuLiang/odin-pytorch: T = 1000, epsilon = 0.0014, step by std; images 1000 to 1199 of CIFAR-10's test set."""
    data = Path(os.environ["OOD_DATA"])
    net = densenet_bc.build(densenet_bc.Options(depth=100, growth=12, reduction=0.5), 10)
    arrays = np.load(data / "released/odin/densenet10_state.npz")
    net.load_state_dict({key: torch.from_numpy(arrays[key]) for key in arrays}, strict=False)
    records = np.fromfile(data / "cifar10/test_batch.bin", np.uint8).reshape(-1, 3073)[1000:1200, 1:]
    mean, std = (np.array(v)[:, None, None] / 255 for v in ((125.3, 123.0, 113.9), (63.0, 62.1, 66.7)))
    x = torch.from_numpy((records.reshape(-1, 3, 32, 32) / 255 - mean) / std).float()
    net.eval().requires_grad_(False)
    for name, options in (("Base", odin.Options(1.0, 0.0)), ("Our", odin.Options(1000.0, 0.0014, by_std=True))):
        released = np.loadtxt(data / f"released/odin/scores_cifar10_tinyimagenet_crop/confidence_{name}_In.txt",
                              delimiter=",")[:200, 2]
        found = odin.score(options, Known(input_std=tuple(std.ravel())), None, net, x)
        np.testing.assert_allclose(found.exp(), released, rtol=0, atol=1e-5 if name == "Base" else 1e-6)


def test_odin_without_a_step_is_the_tempered_softmax(released, golden_odin):
    x = torch.from_numpy(golden_odin["x"])
    expected = temperature.score(temperature.Options(10.0), Known(), None, Batch(logits=released(x).numpy()))
    found = odin.score(odin.Options(10.0, 0.0), Known(), None, released, x)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_zero_gradient_steps_down():
    """A gradient of zero counts as positive."""
    assert odin.downhill(torch.tensor([[3.0, -2.0, 0.0]])).tolist() == [[-1, 1, -1]]


# -- Mahalanobis ensemble -----------------------------------------------------------------------------------------


class Mixer(Classifier):
    """One stage: each pixel's channels times a matrix. On 1x1 images, h = A x."""

    def __init__(self, matrix):
        super().__init__()
        self.matrix, self.fc = matrix, nn.Linear(len(matrix), 2).double()

    def maps(self, x):
        return torch.einsum("dc,nchw->ndhw", self.matrix, x)


@pytest.fixture
def linear():
    """(network, its Gaussians, train features, means, labels)."""
    rng = np.random.default_rng(0)
    net = Mixer(torch.from_numpy(rng.normal(size=(4, 3)))).eval()
    labels = np.arange(80) % 2
    x = torch.from_numpy(rng.normal(size=(80, 3, 1, 1)) + labels[:, None, None, None])
    h = net.features(x)
    moments = mahalanobis_ensemble.Moments(h[:30], 2)
    for rows in (slice(0, 30), slice(30, 80)):
        moments.add(h[rows], torch.from_numpy(labels[rows]))
    means = np.stack([h[labels == c].mean(0).numpy() for c in (0, 1)])
    return net, moments.gaussians(), h.numpy(), means, labels


def test_gaussians_from_a_stream_equal_the_cached_score(linear):
    """Without a step and with one stage, M is half the ``mahalanobis`` score (here of rank 3 in 4 dimensions)."""
    net, model, h, means, labels = linear
    known = Known(statistics=Statistics(means, np.bincount(labels), h.mean(0)), train_features=h, train_labels=labels)
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(9, 3, 1, 1)))
    options, batch = mahalanobis.Options(), Batch(features=net.features(x).numpy())
    expected = mahalanobis.score(options, known, mahalanobis.fit(options, known), batch)
    found = mahalanobis_ensemble.confidences(net, [model], x, (0.0,))
    assert found.shape == (9, 1, 1)
    np.testing.assert_allclose(2 * found[:, 0, 0], expected, rtol=1e-8)


def test_the_step_goes_towards_the_nearest_mean(linear):
    """Closed form: the gradient of d^2 is 2 A^T S^+ (A x - mu)."""
    net, model, h, means, labels = linear
    a, m = net.matrix.numpy(), 0.01
    deviation = h - means[labels]
    inverse = np.linalg.pinv(deviation.T @ deviation / len(h), rcond=1e-10, hermitian=True)
    x = np.random.default_rng(1).normal(size=(9, 3))

    def squares(x):
        d = (x @ a.T)[:, None] - means  # (9, 2, 4)
        return d, np.einsum("ncd,de,nce->nc", d, inverse, d)

    d, first = squares(x)
    nearest = d[np.arange(9), first.argmin(1)]
    expected = squares(x - m * np.sign(nearest @ inverse @ a))[1].min(1) / -2
    found = mahalanobis_ensemble.confidences(net, [model], torch.from_numpy(x)[:, :, None, None], (0.0, m))
    np.testing.assert_allclose(found[:, 0, 1], expected, rtol=1e-8)
    assert (found[:, 0, 1] > found[:, 0, 0]).all()


def inputs(count, seed):
    pixels, labels = images(count, seed)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2) / 63.75 - 2, torch.from_numpy(labels)


def fitted(net, count=300, size=32, **options):
    x, labels = inputs(count, 1)
    options = mahalanobis_ensemble.Options(**{"held_out": 60, "magnitudes": (0.0, 0.01), **options})
    batches = zip(x.split(size), labels.split(size), strict=True)
    return options, mahalanobis_ensemble.fit(options, Known(train_labels=labels.numpy()), net, batches)


@pytest.mark.parametrize("pseudo", ["fgsm", "noise"])
def test_ensemble_tells_rows_from_noise_it_never_saw(pseudo):
    net = network()
    options, state = fitted(net, pseudo_ood=pseudo, strength=0.3)
    assert len(state.gaussians) == 5 and state.magnitude in options.magnitudes
    noise = torch.randn(40, 3, 16, 16, generator=torch.Generator().manual_seed(5))
    scores = [mahalanobis_ensemble.score(options, Known(), state, net, x) for x in (inputs(40, 2)[0], noise)]
    assert scores[0].dtype == torch.float64 and auroc(curve(*(s.numpy() for s in scores))) > 0.95
    alone = mahalanobis_ensemble.score(options, Known(), state, net, noise[:1])
    torch.testing.assert_close(alone, scores[1][:1], rtol=1e-4, atol=1e-4)


def test_ensemble_does_not_depend_on_the_batches():
    net = network()
    _, first = fitted(net, size=32)
    _, second = fitted(net, size=300)
    assert first.magnitude == second.magnitude
    torch.testing.assert_close(first.weights, second.weights, rtol=1e-2, atol=1e-3)


def test_fgsm_raises_the_loss():
    net, (x, labels) = network(), inputs(30, 2)
    options = mahalanobis_ensemble.Options()
    changed = mahalanobis_ensemble.pseudo_ood(options, net, x, labels, torch.Generator())
    torch.testing.assert_close((changed - x).abs(), torch.full_like(x, 0.05), rtol=0, atol=1e-6)
    before, after = (functional.cross_entropy(net(part), labels, reduction="none") for part in (x, changed))
    assert (after > before).float().mean() > 0.9


@pytest.mark.parametrize(("held_out", "size", "count"), [(1000, 50_000, 1000), (1000, 300, 60), (7, 300, 6)])
def test_held_out_images_are_few_and_evenly_spaced(held_out, size, count):
    mask = mahalanobis_ensemble.held_out(mahalanobis_ensemble.Options(held_out=held_out), np.arange(size) % 10)
    where = np.flatnonzero(mask)
    assert len(where) == count and not mask[:10].any()
    assert set(np.diff(where)) <= {(size - 10) // count, (size - 10) // count + 1}


def test_no_class_is_held_out_whole():
    """Five classes of one image each among 40."""
    labels = np.concatenate([np.zeros(35, int), np.arange(1, 6)])
    mask = mahalanobis_ensemble.held_out(mahalanobis_ensemble.Options(), labels)
    assert mask.sum() == 8 and set(labels[~mask]) == set(range(6))


def test_ensemble_refuses_too_little():
    net = network()
    with pytest.raises(OODError, match="10 images are too few"):
        fitted(net, count=10)
    x, labels = inputs(60, 1)
    with pytest.raises(OODError, match="class 2 has no image"):
        mahalanobis_ensemble.fit(mahalanobis_ensemble.Options(), Known(train_labels=labels.numpy()), net,
                                 [(x, labels.clamp(max=1))])


# -- the stage ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stage")
    write_all(folder)
    return folder


def arguments(files, config, sets=("rows.test", "noise.test"), train=True):
    config = {**CONFIG, "sets": list(sets), **config}
    return ["--config", json.dumps(config), "--checkpoint", str(files / "seed0.pt"), "--stores",
            *(str(files / f"{name}.h5") for name in sets), "--device", "cpu", "--threads", "1", "--out",
            str(files / "out.h5"), *(["--train-store", str(files / "rows.train.h5")] if train else [])]


@pytest.mark.parametrize("name", ON_MAPS)
def test_stage_writes_what_the_score_gives(files, name):
    """In batches of 16 as in one; inputs of a noise set are not normalised again."""
    options = SMALL.get(name, {})
    module, net = plugins.load("scores", name), network()
    x, labels = inputs(300, 1)
    means = torch.stack([net.features(x)[labels == c].double().mean(0) for c in range(3)])
    with h5py.File(files / "statistics.h5", "w") as file:
        file["class_means"], file["counts"], file["mean"] = means, [100] * 3, means.mean(0)
    more = ["--statistics", str(files / "statistics.h5")] if "statistics" in module.SPEC.needs else []
    score_network.main([*arguments(files, {"score": name, "name": f"{name}-row", "options": options}), *more])
    options = module.Options(**options)
    known = Known(train_labels=labels.numpy(), statistics=Statistics(means, None, None))
    state = module.fit(options, known, net, [(x, labels)]) if hasattr(module, "fit") else None
    loose = 0 if state is None else 1e-2
    with h5py.File(files / "noise.test.h5") as store:
        sets = {"rows.test": inputs(40, 2)[0], "noise.test": torch.from_numpy(store["inputs"][:])}
    with h5py.File(files / "out.h5") as out:
        assert set(out) == set(sets) and (out.attrs["score"], out.attrs["name"]) == (name, f"{name}-row")
        assert set(json.loads(out.attrs["options"])) == {row[0] for row in plugins.fields("scores", name)}
        for key, images in sets.items():
            assert out[key].dtype == np.float64
            expected = module.score(options, known, state, net, images)
            apart = ~np.isclose(out[key], expected, rtol=loose or 1e-5, atol=loose)
            assert apart.mean() <= (0.05 if loose else 0)  # a rank may turn over by rounding, and a score with it


def refused(capsys, given, files):
    (files / "out.h5").unlink(missing_ok=True)
    with pytest.raises(SystemExit) as error:
        score_network.main(given)
    assert error.value.code == 1 and not (files / "out.h5").exists() and not list(files.glob(".*.partial"))
    return capsys.readouterr().err


@pytest.mark.parametrize(("config", "message"), [
    ({"score": "energy"}, "score 'energy' does not need the network; run workflow_scripts.stages.score_sets"),
    ({"score": "odinn"}, "'odinn' is not known; did you mean 'odin'?"),
    ({"score": "odin", "options": {"eps": 1}}, "unknown key 'eps'; did you mean 'epsilon'?"),
    ({"score": "odin", "options": {"temperature": 0}}, "scores.odin.temperature"),
    ({"score": "odin", "seed": 1}, "--config.seed: unknown key 'seed'"),
    ({}, "--config.score: required but missing"),
    ({"score": "odin", "sets": ["rows.test"]}, "1 sets need as many stores, found 2"),
    ({"score": "odin", "network": {"name": "tiny", "model": "resnet_cifar", "options": {}}}, "not of network 'tiny'"),
])
def test_stage_refuses_a_configuration(files, capsys, config, message):
    assert message in refused(capsys, arguments(files, config), files)


def test_stage_refuses_bad_images(files, capsys):
    score = {"score": "odin"}
    pixels, labels = images(4)
    write_store(files / "one.test.h5", labels[:1], images=pixels[:1])
    assert "one.test.h5: it holds a single image" in refused(capsys, arguments(files, score, ["one.test"]), files)
    broken = np.zeros((20, 3, 16, 16), np.float32)
    broken[17] = np.nan
    write_store(files / "broken.test.h5", np.full(20, -1), 0, inputs=broken)
    message = refused(capsys, arguments(files, score, ["rows.test", "broken.test"]), files)
    assert "score 'odin' of set 'broken.test' is NaN or infinite for image 17" in message


def test_stage_refuses_a_wrong_train_store(files, capsys):
    config = {"score": "mahalanobis_ensemble"}
    assert "--train-store" in refused(capsys, arguments(files, config, train=False), files)
    pixels, labels = images(20)
    write_store(files / "more.train.h5", labels + 1, 4, images=pixels)
    given = [*arguments(files, config), "--train-store", str(files / "more.train.h5")]
    assert "labels 1..3, but the checkpoint has 3 classes" in refused(capsys, given, files)


def test_other_needs_are_refused(files, monkeypatch):
    monkeypatch.setattr(odin, "SPEC", replace(odin.SPEC, needs=odin.SPEC.needs | {"train_features"}))
    section = ScoreNetwork.of(**{**CONFIG, "score": "odin", "sets": []})
    with pytest.raises(OODError, match="needs train_features besides the network"):
        score_network.prepared(section, section.options, network(), 1, None, None)


def test_state_scores_as_its_formula():
    net = network()
    options, state = fitted(net)
    x = inputs(8, 4)[0]
    doubled = replace(state, weights=2 * state.weights, intercept=0.0)
    torch.testing.assert_close(mahalanobis_ensemble.score(options, Known(), doubled, net, x),
                               2 * (mahalanobis_ensemble.score(options, Known(), state, net, x) - state.intercept))
