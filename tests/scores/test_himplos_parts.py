"""HIMPLoS's masking and smoothing on other scores, each against the same arithmetic image by image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.network_data import CONFIG, images, network
from tests.scores_data import evidence, run
from workflow_scripts.core.errors import OODError
from workflow_scripts.scores import base, bats, dice, himplos, line, odin_himplos, react
from workflow_scripts.scores.base import Known, Statistics
from workflow_scripts.stages import score_network
from workflow_scripts.stages.sections.score_network import ScoreNetwork

KNOWN, BATCH = evidence()
W, B, MEANS = (np.asarray(part, float) for part in (KNOWN.head.weight, KNOWN.head.bias, KNOWN.statistics.class_means))


def energy(z):
    return float(np.log(np.exp(z - z.max()).sum()) + z.max())


def cosine(a, b):
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def kept(h, y, p):
    """Units of which the head weight of class ``y`` is at least the p-th percentile of its row."""
    return np.where(W[y] >= np.percentile(W[y], p), h, 0)


def each(one):
    return [one(np.asarray(h, float), int(np.argmax(W @ h + B))) for h in BATCH.features]


@pytest.mark.parametrize("cosine_too", [True, False])
def test_msp(cosine_too):
    options = himplos.Options(p=60, clip=1.0, cosine=cosine_too, measure="msp")

    def one(h, y):
        z = (W @ np.minimum(kept(h, y, 60), 1.0) + B) * (cosine(MEANS[y], h) if cosine_too else 1)
        return z.max() - energy(z)
    np.testing.assert_allclose(run(himplos, options, KNOWN, BATCH), each(one), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("mask", "smooth"), [(60, True), (60, False), (0, True)])
def test_dice(mask, smooth):
    contribution = W * KNOWN.statistics.mean
    sparse = np.where(contribution > np.percentile(contribution, 70), W, 0)

    def one(h, y):
        return energy((sparse @ kept(h, y, mask) + B) * (cosine(MEANS[y], h) if smooth else 1))
    found = run(dice, dice.Options(p=70, mask=mask, smooth=smooth), KNOWN, BATCH)
    np.testing.assert_allclose(found, each(one), rtol=1e-9)


@pytest.mark.parametrize(("mask", "smooth"), [(60, True), (60, False), (0, True)])
def test_bats(mask, smooth):
    beta, gamma = (np.asarray(part, float) for part in (KNOWN.batchnorm.bias, KNOWN.batchnorm.weight))

    def one(h, y):
        shaped = np.clip(h, beta - 0.8 * abs(gamma), beta + 0.8 * abs(gamma))
        return energy((W @ kept(shaped, y, mask) + B) * (cosine(MEANS[y], h) if smooth else 1))
    options = bats.Options(lam=0.8, mask=mask, smooth=smooth)
    np.testing.assert_allclose(run(bats, options, KNOWN, BATCH), each(one), rtol=1e-9)
    assert ("statistics" in base.needs(bats, options)) == smooth


def test_line():
    """The cosine is of the clipped feature, to the prototype of the class that LINe's own logits predict."""
    contribution = MEANS * W

    def one(h, _):
        h = np.minimum(h, 1.2)
        c = int(np.argmax(W @ h + B))
        units = contribution[c] > np.percentile(contribution[c], 20)
        important = abs(contribution[c]) * W
        z = np.where(important > np.percentile(important, 60), W, 0) @ np.where(units, h, 0) + B
        return energy(z * cosine(MEANS[np.argmax(z)], h))
    found = run(line, line.Options(p_a=20, p_w=60, clip=1.2, smooth=True), KNOWN, BATCH)
    np.testing.assert_allclose(found, each(one), rtol=1e-9)


def test_a_clip_without_mask_and_cosine_is_react():
    np.testing.assert_allclose(run(himplos, himplos.Options(p=0, clip=1.0, cosine=False), KNOWN, BATCH),
                               run(react, react.Options(clip=1.0), KNOWN, BATCH), rtol=1e-12)


@pytest.fixture(scope="module")
def tiny():
    """(network in double, inputs, prototypes)."""
    net = network().double().eval()
    pixels, labels = images(24, 0)
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).double() / 63.75 - 2
    with torch.no_grad():
        h = net.features(x)
    return net, x, np.stack([h[labels == c].mean(0).numpy() + 0.01 for c in range(net.head.out_features)])


@pytest.mark.parametrize("options", [{"p": 60, "clip": 0.5, "epsilon": 0.02}, {"p": 30, "clip": 0.3, "cosine": False},
                                     {"p": 0, "clip": float("inf"), "temperature": 10, "epsilon": 0.05}])
def test_odin(tiny, options):
    """Image by image: mask and prototype of the raw prediction for the step, of the masked one behind it."""
    net, x, means = tiny
    chosen = odin_himplos.Options(**options)
    prototypes = torch.from_numpy(means)
    weight, bias = net.head.weight.detach(), net.head.bias.detach()

    def logits(h, y):
        edge = float(np.percentile(weight[y].numpy(), chosen.p))
        z = (h * (weight[y] >= edge)).clamp(max=chosen.clip) @ weight.T + bias
        return z, z * functional.cosine_similarity(prototypes[y], h, dim=0) if chosen.cosine else z

    expected = []
    for image in x:
        moving = image[None].clone().requires_grad_()
        h = net.features(moving)[0]
        plain, scaled = logits(h, int((h @ weight.T + bias).argmax()))
        c = int(plain.argmax())
        functional.cross_entropy(scaled[None] / chosen.temperature, torch.tensor([c])).backward()
        step = torch.where(moving.grad >= 0, 1.0, -1.0)
        with torch.no_grad():
            _, scaled = logits(net.features(image[None] - chosen.epsilon * step)[0], c)
            expected.append((scaled / chosen.temperature).log_softmax(0).max())
    known = Known(statistics=Statistics(prototypes, None, None))
    state = odin_himplos.fit(chosen, known, net, ())
    np.testing.assert_allclose(odin_himplos.score(chosen, known, state, net, x), expected, rtol=0, atol=1e-10)
    assert np.ptp(expected) > 1e-6


def test_the_stage_asks_for_the_class_means():
    section = ScoreNetwork.of(**{**CONFIG, "score": "odin_himplos", "name": "odin_himplos", "options": {}, "sets": []})
    with pytest.raises(OODError, match="--statistics: score 'odin_himplos' needs the class means"):
        score_network.prepared(section, section.options, network(), 1, None, torch.device("cpu"))
