"""Scores against naive forms, written image by image from the equations that their docstrings cite."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import brentq

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


def vra(h, z, low, high, gamma, axis=0):
    levels = [np.broadcast_to(np.percentile(TRAIN, p, axis=axis), h.shape) for p in (low, high)]
    return energy(W @ np.array([0.0 if v < a else b if v > b else v + gamma
                                for v, a, b in zip(h, *levels, strict=True)]) + B)


def lts(h, z, count):
    return energy(z * (sum(h) / sum(sorted(h)[-count:])) ** 2)


def ctm(h, z):
    return max(cosine(h, mean) for mean in MEANS)


def relation(h, z, power, rows):
    edges = [max(cosine(h, t), 0) * (softmax(z) @ softmax(t_z))
             for t, t_z in zip(TRAIN[rows], TRAIN_LOGITS[rows], strict=True)]
    return sum(edge**power for edge in edges if edge > 0.03)


def pnml(h, z, constant):
    x, bank = h / length(h), TRAIN / np.linalg.norm(TRAIN, axis=1, keepdims=True)
    p = softmax(W @ x + B)
    x, bank = np.append(x, constant), np.column_stack([bank, np.full(len(bank), constant)])
    within = x @ np.linalg.pinv(bank.T @ bank, rcond=1e-10, hermitian=True) @ x
    g = within / (1 + within)
    return -math.log(sum(p / (p + (1 - p) * p**g))) / math.log(CLASSES)


def neco(h, z, dim):
    alive = TRAIN.std(axis=0) > 0
    scale = np.where(alive, TRAIN.std(axis=0), 1.0)
    directions = np.linalg.svd((TRAIN - MEAN) / scale)[2][:dim]
    x = (h - MEAN) / scale
    return length(directions @ x) / length(x) * max(z)


def cf_ood(h, z, k, rows):
    """The least share of the grid within which a share k of the bank counts the image as a neighbour."""
    bank = TRAIN[rows] / np.linalg.norm(TRAIN[rows], axis=1, keepdims=True)
    x, size = h / length(h), len(TRAIN[rows])
    gaps = np.sort(np.linalg.norm(bank[:, None] - bank[None], axis=2), axis=1)
    for share in (*np.linspace(0.001, 0.1, 100), *np.linspace(0.105, 0.5, 81), *np.linspace(0.51, 0.99, 49)):
        neighbour = gaps[:, int(share * size - 1) + 1]
        if np.mean(neighbour >= np.linalg.norm(bank - x, axis=1)) >= k:
            return -share
    return -1.0


def openmax(h, z, tail, alpha, weight):
    right = np.argmax(TRAIN_LOGITS, axis=1) == LABELS
    order = np.argsort(-z)
    revised, unknown = z.copy(), 0.0
    for i, c in enumerate(order[:alpha]):
        own = TRAIN_LOGITS[right & (c == LABELS)]
        mean = own.mean(axis=0)
        far = [weight * length(t - mean) + (1 - weight) * (1 - cosine(t, mean)) for t in own]
        far = np.sort(far)[-tail:]
        x = 10_000 + far - far[0]
        u = np.log(x)
        # where the derivative of the likelihood by the shape is 0
        k = brentq(lambda k, u=u: 1 / k + u.mean() - np.exp(k * (u - u.max())) @ u / sum(np.exp(k * (u - u.max()))),
                   1.0, 1e8, rtol=1e-14)
        scale = math.exp((np.logaddexp.reduce(k * u) - math.log(len(u))) / k)
        d = weight * length(z - mean) + (1 - weight) * (1 - cosine(z, mean))
        outlier = 1 - math.exp(-(((10_000 + d - far[0]) / scale) ** k))
        lost = z[c] * outlier * (alpha - i) / alpha
        revised[c] -= lost
        unknown += lost
    return energy(revised) - unknown


def kpca(h, z, kernel, explained):
    def maps(rows):
        x = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        if kernel == "cosine":
            return x
        random = np.random.default_rng(0)
        w, u = random.normal(0, math.sqrt(2), (WIDTH, 96)), random.uniform(0, 2 * np.pi, 96)
        return math.sqrt(2 / 96) * np.cos(x @ w + u)
    train, x = maps(TRAIN), maps(h[None])[0]
    centred = train - train.mean(axis=0)
    _, s, directions = np.linalg.svd(centred)
    count = 1 + int(np.argmax(np.cumsum(s**2) / sum(s**2) >= explained))
    x = x - train.mean(axis=0)
    return -length(x - directions[:count].T @ (directions[:count] @ x))


def combood(h, z, k, rows):
    near = sorted(length(h - t) for t in TRAIN[rows])[k - 1]
    alive = TRAIN.std(axis=0) > 0
    standard = (TRAIN - MEAN)[:, alive] / TRAIN.std(axis=0)[alive]
    inverse = np.linalg.inv(standard.T @ standard / len(TRAIN) + np.eye(alive.sum()))
    x = (h - MEAN)[alive] / TRAIN.std(axis=0)[alive]
    dead = (h - MEAN)[~alive]  # not standardised; a covariance of the ridge alone
    return -WIDTH * math.log(near**2) - x @ inverse @ x - dead @ dead


def grood_gradient(h):
    """By finite differences of the loss by the OOD prototype."""
    def loss(o):
        scores = np.array([-length(h - p) for p in (*MEANS, o)])
        return energy(scores) - scores[0]
    o = MEANS.mean(axis=0)
    return np.array([(loss(o + step) - loss(o - step)) / 2e-5 for step in 1e-5 * np.eye(WIDTH)])


GROOD_BANK = [grood_gradient(t) for t in TRAIN[np.argmax(TRAIN_LOGITS, axis=1) == LABELS]]


def grood(h, z, k):
    own = grood_gradient(h)
    return -sorted(length(own - g) for g in GROOD_BANK)[k - 1]


def mahalanobis(h, z, relative):
    """Of unit features."""
    def unit(x):
        return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
    train, x = unit(TRAIN), unit(h)
    means = np.array([train[c == LABELS].mean(axis=0) for c in range(CLASSES)])

    def inverse(deviation):
        return np.linalg.pinv(deviation.T @ deviation / len(train), rcond=1e-10, hermitian=True)
    tied, whole = inverse(train - means[LABELS]), inverse(train - train.mean(axis=0))
    own = min((x - m) @ tied @ (x - m) for m in means)
    return -own + relative * (x - train.mean(axis=0)) @ whole @ (x - train.mean(axis=0))


def nac_bins(h, alpha, count):
    """By finite differences of the divergence."""
    def divergence(x):
        return -math.log(CLASSES) - np.mean(np.log(softmax(W @ x + B)))
    gradient = np.array([(divergence(h + step) - divergence(h - step)) / 2e-6 for step in 1e-6 * np.eye(WIDTH)])
    return np.minimum((count / (1 + np.exp(-alpha * h * gradient))).astype(int), count - 1)


NAC_TRAIN = np.array([nac_bins(t, 7, 6) for t in TRAIN])


def nac(h, z, enough):
    own = nac_bins(h, 7, 6)
    return np.mean([min(sum(NAC_TRAIN[:, j] == own[j]) / enough, 1) for j in range(WIDTH)])


def weiper(h, z, options):
    heads = []
    for noise in np.random.default_rng(0).standard_normal((options["repeats"], *W.shape), np.float32).astype(float):
        heads.append(np.array([w + 1.8 * length(w) * e / length(e) for w, e in zip(W, noise, strict=True)]))

    def both(x):
        return x, np.concatenate([head @ x + B for head in heads])
    train = [np.array(part) for part in zip(*map(both, TRAIN), strict=True)]
    probabilities = [max(softmax(head @ h + B)) for head in heads]
    found = options["lambda_2"] * np.mean(probabilities)
    for x, bank, width, epsilon, weight in zip(both(h), train, (3, 4), (0.01, 0.025), (1, 2.5), strict=True):
        edges = np.linspace(bank.min(), bank.max(), options["bins"] + 1)
        p = np.mean([np.histogram(row, edges)[0] / row.size for row in bank], axis=0) + epsilon
        q = np.histogram(x, edges)[0] / x.size
        padded = np.concatenate([[q[0]] * ((width - 1) // 2), q, [q[-1]] * (width // 2)])
        q = np.convolve(padded, np.ones(width) / width, "valid") + epsilon
        p, q = p / sum(p), q / sum(q)
        found -= weight * (sum(p * np.log(p / q)) + sum(q * np.log(q / p)))
    return found


WEIPER = {"repeats": 3, "bins": 12, "smooth": 3, "smooth_perturbed": 4, "lambda_2": 0.5}


def gmm(h, z, dim):
    directions = np.linalg.svd(TRAIN - MEAN)[2][:dim]
    likelihoods = []
    for c in range(CLASSES):
        own = (TRAIN[c == LABELS] - MEAN) @ directions.T
        covariance = np.cov(own.T, bias=True) + 1e-3 * np.eye(dim)
        away = directions @ (h - MEAN) - own.mean(axis=0)
        likelihoods.append(math.log(len(own) / len(TRAIN)) - (away @ np.linalg.inv(covariance) @ away + dim * math.log(
            2 * math.pi) + np.linalg.slogdet(covariance)[1]) / 2)
    return energy(np.array(likelihoods))


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
    ("vra", {"per_unit": False}, lambda h, z: vra(h, z, 60, 95, 0.0, None)),
    ("lts", {"p": 10.0}, lambda h, z: lts(h, z, 2)),
    ("ctm", {}, ctm),
    ("relation", {}, lambda h, z: relation(h, z, 1, slice(None))),
    ("relation", {"power": 4.0, "bank": 100}, lambda h, z: relation(h, z, 4, slice(None, None, 2))),
    ("pnml", {}, lambda h, z: pnml(h, z, 0)),
    ("pnml", {"bias": True}, lambda h, z: pnml(h, z, 1)),
    ("neco", {"max_logit": True}, lambda h, z: neco(h, z, CLASSES)),
    ("neco", {}, lambda h, z: neco(h, z, CLASSES) / max(z)),
    ("neco", {"dim": 9}, lambda h, z: neco(h, z, 9) / max(z)),
    ("cf_ood", {"k": 0.05}, lambda h, z: cf_ood(h, z, 0.05, slice(None))),
    ("cf_ood", {"bank": 50}, lambda h, z: cf_ood(h, z, 0.01, slice(None, None, 4))),
    ("openmax", {"tail": 9, "alpha": 3}, lambda h, z: openmax(h, z, 9, 3, 1.0)),
    ("openmax", {"euclid_weight": 0.3}, lambda h, z: openmax(h, z, 20, 5, 0.3)),
    ("kpca", {}, lambda h, z: kpca(h, z, "gaussian", 0.9)),
    ("kpca", {"kernel": "cosine", "explained": 0.6}, lambda h, z: kpca(h, z, "cosine", 0.6)),
    ("combood", {}, lambda h, z: combood(h, z, 50, slice(None))),
    ("combood", {"K": 2, "bank": 100}, lambda h, z: combood(h, z, 2, slice(None, None, 2))),
    ("grood", {}, lambda h, z: grood(h, z, 1)),
    ("grood", {"K": 5}, lambda h, z: grood(h, z, 5)),
    ("nac", {"alpha": 7.0, "M": 6, "enough": 20}, lambda h, z: nac(h, z, 20)),
    ("weiper", WEIPER, lambda h, z: weiper(h, z, WEIPER)),
    ("gmm", {"ridge": 1e-3}, lambda h, z: gmm(h, z, WIDTH)),
    ("gmm", {"ridge": 1e-3, "dim": 5}, lambda h, z: gmm(h, z, 5)),
    ("mahalanobis", {"unit": True}, lambda h, z: mahalanobis(h, z, 0)),
    ("relative_mahalanobis", {"unit": True}, lambda h, z: mahalanobis(h, z, 1)),
]
TOLERANCES = {"openmax": 1e-7, "grood": 1e-5}  # where the naive form searches or takes differences


@pytest.mark.parametrize(("name", "options", "naive"), TABLE, ids=[f"{row[0]}{row[1] or ''}" for row in TABLE])
def test_equals_the_naive_form(name, options, naive):
    module = plugins.load("scores", name)
    expected = [naive(h, z) for h, z in zip(BATCH.features, BATCH.logits, strict=True)]
    np.testing.assert_allclose(run(module, module.Options(**options), KNOWN, BATCH), expected,
                               rtol=TOLERANCES.get(name, 1e-8), atol=TOLERANCES.get(name, 1e-10))
    assert np.ptp(expected) > 1e-6


@pytest.mark.parametrize("name", sorted({row[0] for row in TABLE}))
def test_a_dead_feature_has_a_finite_score(name):
    module = plugins.load("scores", name)
    dead = Batch(features=np.zeros((1, WIDTH)), logits=B[None])
    assert np.isfinite(run(module, module.Options(), KNOWN, dead)).all()


# Refused, with the key's name
@pytest.mark.parametrize(("name", "options", "message"), [
    ("nnguide", {"K": 201}, r"nnguide\.K: 201 .* only 200 ID train features"),
    ("nnguide", {"bank": 9}, r"nnguide\.K: 10 .* larger bank"),
    ("combood", {"bank": 10}, r"combood\.K: the 50-th .* only 10 ID train features"),
    ("grood", {"K": 190}, r"grood\.K: neighbour 190 .* only 152 of 200"),
    ("gmm", {"dim": 25}, r"gmm\.dim: 25 directions .* at most 24"),
    ("neco", {"dim": WIDTH}, r"neco\.dim: 24 directions leave nothing"),
    ("kpca", {"M": 8, "explained": 0.9999}, r"kpca\.explained: all 8 directions"),
    ("vra", {"low": 96.0}, r"vra\.low: .* 96.0 is above vra\.high, 95.0")])
def test_refused_while_fitting(name, options, message):
    module = plugins.load("scores", name)
    with pytest.raises(OODError, match=message):
        run(module, module.Options(**options), KNOWN, BATCH)


@pytest.mark.parametrize(("name", "message"), [
    ("she", "she: class 2 has no train image that the network classifies correctly"),
    ("openmax", "openmax: class 2 has 0 train images that the network classifies correctly, expected at least 2")])
def test_a_class_that_is_never_right_is_refused(name, message):
    module = plugins.load("scores", name)
    known, batch = evidence()
    known.train_logits[:, 2] = -100
    with pytest.raises(OODError, match=message):
        run(module, module.Options(), known, batch)
