"""Scores against naive forms, written image by image from the equations that their docstrings cite."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.scores_data import CLASSES, WIDTH, evidence, run
from workflow_scripts.core import plugins
from workflow_scripts.core.errors import OODError
from workflow_scripts.scores.base import Batch

KNOWN, BATCH = evidence()
W, B = KNOWN.head.weight, KNOWN.head.bias
TRAIN, LABELS, TRAIN_LOGITS = KNOWN.train_features, KNOWN.train_labels, KNOWN.train_logits
MEANS, MEAN = KNOWN.statistics.class_means, KNOWN.statistics.mean


def length(x):
    return math.sqrt(float(x @ x))


def energy(z):
    return float(np.logaddexp.reduce(z))


def softmax(z):
    return np.exp(z - energy(z))


def fdbd(h, z, divisor):
    y = int(np.argmax(z))
    distances = [abs(z[y] - z[c]) / length(W[y] - W[c]) for c in range(CLASSES) if c != y]
    return sum(distances) / len(distances) / divisor(h)


def nci(h, z, alpha):
    centred = h - MEAN
    return W[np.argmax(z)] @ centred / length(centred) + alpha * sum(abs(h))


def she(h, z, compare):
    right = np.argmax(TRAIN_LOGITS, axis=1) == LABELS
    return compare(h, TRAIN[right & (np.argmax(z) == LABELS)].mean(axis=0))


def cosine(a, b):
    return a @ b / length(a) / length(b) if length(a) and length(b) else 0.0


def nnguide(h, z, k, rows):
    guides = [energy(t_z) * cosine(h, t) for t, t_z in zip(TRAIN[rows], TRAIN_LOGITS[rows], strict=True)]
    return np.mean(sorted(guides)[-k:]) * energy(z)


def vra(h, z, low, high, gamma):
    a, b = np.percentile(TRAIN, low), np.percentile(TRAIN, high)
    return energy(W @ np.array([0.0 if v < a else b if v > b else v + gamma for v in h]) + B)


def lts(h, z, count):
    return energy(z * (sum(h) / sum(sorted(h)[-count:])) ** 2)


def ctm(h, z):
    return max(cosine(h, mean) for mean in MEANS)


TABLE = [
    ("fdbd", {}, lambda h, z: fdbd(h, z, lambda h: length(h - MEAN))),
    ("fdbd", {"regulariser": "norm"}, lambda h, z: fdbd(h, z, length)),
    ("nci", {"alpha": 0.01}, lambda h, z: nci(h, z, 0.01)),
    ("she", {}, lambda h, z: she(h, z, np.dot)),
    ("she", {"measure": "cosine"}, lambda h, z: she(h, z, cosine)),
    ("she", {"measure": "euclidean"}, lambda h, z: she(h, z, lambda a, b: -length(a - b))),
    ("nnguide", {}, lambda h, z: nnguide(h, z, 10, slice(None))),
    ("nnguide", {"K": 3, "bank": 70}, lambda h, z: nnguide(h, z, 3, slice(None, None, 3))),
    ("vra", {}, lambda h, z: vra(h, z, 60, 95, 0.0)),
    ("vra", {"low": 30.0, "high": 80.0, "gamma": 0.6}, lambda h, z: vra(h, z, 30, 80, 0.6)),
    ("lts", {"p": 10.0}, lambda h, z: lts(h, z, 2)),
    ("ctm", {}, ctm),
]


@pytest.mark.parametrize(("name", "options", "naive"), TABLE, ids=[f"{row[0]}{row[1] or ''}" for row in TABLE])
def test_equals_the_naive_form(name, options, naive):
    module = plugins.load("scores", name)
    expected = [naive(h, z) for h, z in zip(BATCH.features, BATCH.logits, strict=True)]
    np.testing.assert_allclose(run(module, module.Options(**options), KNOWN, BATCH), expected, rtol=1e-8, atol=1e-10)
    assert np.ptp(expected) > 1e-6


@pytest.mark.parametrize("name", ["fdbd", "nci", "she", "nnguide", "vra", "lts", "ctm"])
def test_a_dead_feature_has_a_finite_score(name):
    module = plugins.load("scores", name)
    dead = Batch(features=np.zeros((1, WIDTH)), logits=B[None])
    assert np.isfinite(run(module, module.Options(), KNOWN, dead)).all()


# Refused, with the key's name
@pytest.mark.parametrize(("name", "options", "message"), [
    ("nnguide", {"K": 201}, r"nnguide\.K: 201 .* only 200 ID train features"),
    ("nnguide", {"bank": 9}, r"nnguide\.K: 10 .* larger bank"),
    ("vra", {"low": 96.0}, r"vra\.low: .* 96.0 is above vra\.high, 95.0")])
def test_refused_while_fitting(name, options, message):
    module = plugins.load("scores", name)
    with pytest.raises(OODError, match=message):
        run(module, module.Options(**options), KNOWN, BATCH)


def test_she_refuses_a_class_that_is_never_right():
    module = plugins.load("scores", "she")
    known, batch = evidence()
    known.train_logits[:, 2] = -100
    with pytest.raises(OODError, match="she: class 2 has no train image that the network classifies correctly"):
        run(module, module.Options(), known, batch)
