"""Scores against pytorch-ood 0.4.0 on the same features; its scores are higher for OOD.

Each row states the monotone map from ours to theirs. Where the definitions differ, a test below pins the difference.
"""

from dataclasses import replace

import numpy as np
import pytest

from tests.scores_data import CLASSES, WIDTH, evidence, run
from workflow_scripts.core import plugins
from workflow_scripts.scores import ash, gen, gradnorm, msp, nac, openmax, scale, vim
from workflow_scripts.scores.base import Batch, Head, Known

torch = pytest.importorskip("torch")
peer = pytest.importorskip("pytorch_ood.detector")
nac_peer = pytest.importorskip("pytorch_ood.detector.nac")

KNOWN, BATCH = evidence()
FEATURES, LOGITS, TRAIN, TRAIN_LOGITS, LABELS = (
    torch.from_numpy(part) for part in (BATCH.features, BATCH.logits, KNOWN.train_features, KNOWN.train_logits,
                                        KNOWN.train_labels))
WEIGHT, BIAS = torch.from_numpy(KNOWN.head.weight), torch.from_numpy(KNOWN.head.bias)
SIZE = len(TRAIN)


@pytest.fixture(autouse=True)
def in_double(monkeypatch):
    """Theirs computes in float32 where it says ``.float()`` or makes a tensor; here in float64: definitions count."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(default)


def linear():
    layer = torch.nn.Linear(WIDTH, CLASSES)
    layer.load_state_dict({"weight": WEIGHT, "bias": BIAS})
    return layer


def head(maps):
    return maps.flatten(1) @ WEIGHT.T + BIAS


def shaped(detector):
    return detector.predict_feature_maps(FEATURES[:, :, None, None])


def live(features):
    """Without the dead unit, whose variance is 0: there theirs adds 1e-6, ours takes the pseudo-inverse."""
    return torch.cat([features[:, :3], features[:, 4:]], dim=1)


def unit(features):
    return torch.nn.functional.normalize(live(features))


def fitted(detector, part=lambda features: features):
    return detector.fit_features(part(TRAIN), LABELS).predict_features(part(FEATURES))


def react_peer():
    detector = peer.ReAct(None, head, percentile=0.9)
    detector.fit_feature_maps(TRAIN, LABELS)
    return shaped(detector)


def gradnorm_peer(**options):
    return peer.GradNorm(linear(), **options).to("cpu").predict(FEATURES)


def she_peer():
    return peer.SHE(None, head).fit_features(TRAIN, LABELS).predict_features(FEATURES)


def vra_peer():
    detector = peer.VRA(None, head, lower_percentile=0.3, upper_percentile=0.8)
    detector.fit_feature_maps(TRAIN[:, :, None, None], LABELS)
    detector._lower_threshold = torch.quantile(TRAIN, 0.3, dim=0)[:, None, None]  # theirs are rounded to float32
    detector._upper_threshold = torch.quantile(TRAIN, 0.8, dim=0)[:, None, None]
    return shaped(detector)


def same(s):
    return -s


TABLE = [
    ("msp", {}, lambda: peer.MaxSoftmax.score(LOGITS), lambda s: -np.exp(s)),
    ("temperature", {"temperature": 3.0}, lambda: peer.MaxSoftmax.score(LOGITS, 3.0), lambda s: -np.exp(s)),
    ("max_logit", {}, lambda: peer.MaxLogit.score(LOGITS), same),
    ("energy", {"temperature": 2.0}, lambda: peer.EnergyBased.score(LOGITS, 2.0), same),
    ("react", {}, react_peer, same),
    ("dice", {"p": 70.0}, lambda: fitted(peer.DICE(None, WEIGHT, BIAS, 0.7)), same),
    *(("ash", {"variant": v, "p": 65.0}, lambda v=v: shaped(peer.ASH(None, head, f"ash-{v}", 0.65)), same)
      for v in "psb"),
    ("scale", {"p": 65.0}, lambda: shaped(peer.SCALE(None, head, 0.65)), same),
    ("knn", {"K": 5}, lambda: fitted(peer.KNN(None, 5)), same),
    ("vim", {"dim": 10}, lambda: fitted(peer.ViM(None, 10, WEIGHT, BIAS)), same),
    ("gradnorm", {}, lambda: gradnorm_peer(param_filter=lambda name: name == "weight"), same),
    ("kl_matching", {}, lambda: peer.KLMatching(None).fit_logits(TRAIN_LOGITS).predict_logits(LOGITS), same),
    ("fdbd", {}, lambda: fitted(peer.fDBD(None, linear())), same),
    ("nci", {"alpha": 0.01}, lambda: fitted(peer.NCI(None, linear(), 0.01)), same),
    ("she", {}, she_peer, same),
    ("nnguide", {"K": 7}, lambda: fitted(peer.NNGuide(None, linear(), 7)), same),
    ("vra", {"low": 30.0, "high": 80.0, "low_to": "edge", "per_unit": True}, vra_peer, same),
    ("lts", {"p": 10.0}, lambda: peer.LTS(None, linear(), 0.1).predict_features(FEATURES), same),
    ("pnml", {}, lambda: fitted(peer.PNML(None, linear())), same),
    ("gmm", {"ridge": 1e-3}, lambda: fitted(peer.GMM(None, reg=1e-3)), same),
    # their covariance is the scatter matrix, not divided by the number of images; Mahalanobis has a factor 1/2 besides
    ("mahalanobis", {}, lambda: fitted(peer.Mahalanobis(None), live), lambda s: -s / (2 * SIZE)),
    ("relative_mahalanobis", {}, lambda: fitted(peer.RMD(None), live), lambda s: -s / SIZE),
    ("mahalanobis", {"unit": True}, lambda: fitted(peer.Mahalanobis(None), unit), lambda s: -s / (2 * SIZE)),
    ("relative_mahalanobis", {"unit": True}, lambda: fitted(peer.RMD(None), unit), lambda s: -s / SIZE),
]


@pytest.mark.parametrize(("name", "options", "theirs", "to_theirs"), TABLE, ids=[f"{r[0]}{r[1] or ''}" for r in TABLE])
def test_agrees(name, options, theirs, to_theirs):
    module = plugins.load("scores", name)
    ours = to_theirs(run(module, module.Options(**options), KNOWN, BATCH))
    expected = theirs().detach().numpy()
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)
    assert np.ptp(expected) > 1e-3 or "mahalanobis" in name  # the comparison compares something


# Differences in definition
@pytest.mark.parametrize("m", [3, CLASSES])
def test_gen_is_a_sum_here_and_a_mean_there(m):
    """Equal up to the factor M while no probability is below 1e-7 (see the next test): logits of modest size."""
    ours = run(gen, gen.Options(gamma=0.5, M=m), KNOWN, Batch(logits=BATCH.logits / 8))
    np.testing.assert_allclose(-ours / m, peer.GEN.score(LOGITS / 8, 0.5, m).numpy(), rtol=1e-5)


def test_gen_does_not_clip_probabilities():
    """They clip p to [1e-7, 1 - 1e-7]: 1e-7 ** 0.1 is 0.2 for every class, however improbable, and ranks are lost."""
    logits = np.array([[20.0, 0, 0], [40.0, 0, 0]])
    ours = run(gen, gen.Options(), Known(), Batch(logits=logits))
    theirs = peer.GEN.score(torch.from_numpy(logits)).numpy()
    assert theirs[0] == pytest.approx(theirs[1], rel=1e-2)
    p = np.exp(-np.array([20.0, 40.0]))
    expected = -((2 * p) ** 0.1 + 2 * p**0.1)
    np.testing.assert_allclose(ours, expected, rtol=1e-3)


def test_gradnorm_is_of_the_head_weight_only():
    """By default theirs takes all parameters; for a linear layer the bias adds |p - u|_1, so (|h|_1 + 1) / |h|_1."""
    ours = run(gradnorm, gradnorm.Options(), KNOWN, BATCH)
    length = np.abs(BATCH.features).sum(1)
    np.testing.assert_allclose(-gradnorm_peer().numpy(), ours * (length + 1) / length, rtol=1e-5)


def test_gradnorm_temperature():
    ours = run(gradnorm, gradnorm.Options(temperature=2.0), KNOWN, BATCH)
    theirs = gradnorm_peer(temperature=2.0, param_filter=lambda name: name == "weight")
    np.testing.assert_allclose(-theirs.numpy(), ours, rtol=1e-5)


@pytest.mark.parametrize(("module", "theirs"), [(ash, peer.ASH), (scale, peer.SCALE)])
def test_dead_feature_is_nan_there_and_finite_here(module, theirs):
    assert theirs(None, head).predict_feature_maps(torch.zeros(1, WIDTH, 1, 1)).isnan().all()
    assert np.isfinite(run(module, module.Options(), KNOWN, Batch(np.zeros((1, WIDTH))))).all()


def test_vim_too_many_directions_is_refused_here_and_halved_there():
    detector = peer.ViM(None, WIDTH + 1, WEIGHT, BIAS).fit_features(TRAIN, LABELS)
    ours = run(vim, vim.Options(), KNOWN, BATCH)  # left out: the same half
    np.testing.assert_allclose(-detector.predict_features(FEATURES).numpy(), ours, atol=1e-5)


def test_openmax_is_their_log_odds():
    """On images that are classified rightly, since theirs fits to all; scipy stops at 1e-7 of the parameters."""
    known = replace(KNOWN, train_labels=KNOWN.train_logits.argmax(1))
    ours = run(openmax, openmax.Options(tail=9, alpha=3), known, BATCH)
    theirs = peer.OpenMax(None, tailsize=9, alpha=3).fit_logits(TRAIN_LOGITS, TRAIN_LOGITS.argmax(1))
    every_class = torch.cat([LOGITS, TRAIN_LOGITS])
    np.testing.assert_allclose(1 / (1 + np.exp(ours)), theirs.predict_logits(every_class)[:len(ours)], rtol=1e-4)
    with pytest.raises(AssertionError):  # theirs takes 0 for the distance from a class that nothing else is taken for
        np.testing.assert_allclose(1 / (1 + np.exp(ours)), theirs.predict_logits(LOGITS), rtol=1e-2)


def test_nac_agrees_with_even_bins(monkeypatch):
    """Theirs cuts 0..1 into bins that are finer near 0 and 1, where the paper's are even; and it adds 1e-12 to each
    probability, so the logits here are modest."""
    monkeypatch.setattr(nac_peer, "_bin_indices_geometric", nac_peer._bin_indices)
    known = replace(KNOWN, head=Head(KNOWN.head.weight / 8, KNOWN.head.bias))
    layer = torch.nn.Linear(WIDTH, CLASSES)
    layer.load_state_dict({"weight": WEIGHT / 8, "bias": BIAS})
    network = torch.nn.Sequential(torch.nn.Identity(), layer)
    theirs = peer.NACUE(network, [network[0]], m_bins=7, alpha=30.0, o_star=20)
    theirs.fit([(TRAIN.clone().requires_grad_(), LABELS)])
    ours = run(nac, nac.Options(alpha=30.0, M=7, enough=20), known, BATCH)
    np.testing.assert_allclose(ours, -theirs.predict(FEATURES.clone().requires_grad_()).numpy(), rtol=1e-6)


def test_msp_ties_there_and_none_here():
    logits = np.array([[40.0, 0, 0], [60.0, 0, 0]])
    theirs = peer.MaxSoftmax.score(torch.from_numpy(logits))
    ours = run(msp, msp.Options(), Known(), Batch(logits=logits))
    assert theirs[0] == theirs[1] and ours[0] < ours[1]
