"""HIMPLoS's released network on real images: the release's formulas written out, image by image, against our scores."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.checkout import ROOT
from workflow_scripts.agreement.base import densenet, inputs, pixels
from workflow_scripts.agreement.dice_cifar10 import MEAN, STD, released_means
from workflow_scripts.config import published_checks
from workflow_scripts.core import plugins, sources
from workflow_scripts.data.readers import cifar_binary
from workflow_scripts.scores.base import Batch, Head, Known, Statistics

pytestmark = pytest.mark.data

CLASSES, FEW = 100, 12


def find(role: str) -> Path:
    """A file of the check, or the reason for skipping."""
    checks, _ = published_checks.load(ROOT / "config" / "published_checks.yaml", ROOT / "config" / "sources.yaml")
    found = sources.locate(checks["himplos_cifar100"].files[role].find, Path(os.environ["OOD_DATA"]))
    if not found:
        pytest.skip(f"file '{role}' of himplos_cifar100 is not below OOD_DATA")
    return found[0]


@pytest.fixture(scope="module")
def met():
    """Network in double precision, and a few inputs of CIFAR-100 and CIFAR-10."""
    net = densenet(find("network"), CLASSES, folded=False).double()
    parts = []
    for path, member, records in ((find("test"), "test.bin", "cifar100"),
                                  (Path(os.environ["OOD_DATA"]) / "cifar10/test_batch.bin", "test_batch.bin",
                                   "cifar10")):
        if not path.is_file():
            pytest.skip(f"{path} is not there")
        images = cifar_binary.read(cifar_binary.Options(files=str(path), members=member, records=records), None)
        parts.append(inputs(pixels(images, np.arange(FEW)), MEAN, STD).double())
    x = torch.cat(parts)
    with torch.inference_mode():
        h = net.features(x)
    return net, x, h.numpy(), net.head.weight.numpy(), net.head.bias.numpy()


def prototypes(h, weight, bias):
    """Mean features of the images by predicted class, the head's positive part where a class is not predicted."""
    means = weight.clip(min=0)
    classes = (h @ weight.T + bias).argmax(1)
    for c in set(classes.tolist()):
        means[c] = h[classes == c].mean(0) + 0.1 * means[c]
    return means


def logsumexp(z):
    return z.max() + np.log(np.exp(z - z.max()).sum())


def released(name, h, weight, bias, means, feature_means):
    """The release's score of one image, from its features h (D,)."""
    z = weight @ h + bias
    if name == "msp":
        return np.log(np.exp(z - z.max()).max() / np.exp(z - z.max()).sum())
    if name == "energy":
        return logsumexp(z)
    if name == "react":
        return logsumexp(weight @ np.minimum(h, 1.0) + bias)
    if name == "dice":
        contribution = feature_means[None] * weight
        return logsumexp((weight * (contribution > np.percentile(contribution, 90))) @ h + bias)
    y = z.argmax()
    kept = weight[y] >= np.percentile(weight[y], 60)
    cosine = (means[y] @ h) / max(np.sqrt((means[y] ** 2).sum() * (h ** 2).sum()), 1e-8)
    return logsumexp(cosine * (weight @ np.minimum(h * kept, 1.6) + bias))


@pytest.mark.parametrize(("name", "options"), [
    ("msp", {}), ("energy", {}), ("react", {"clip": 1.0}), ("dice", {"p": 90}),
    ("himplos", {"p": 60, "clip": 1.6})])
def test_scores_of_real_images_are_the_release_s(met, name, options):
    net, _, h, weight, bias = met
    means, feature_means = prototypes(h, weight, bias), released_means(find("means"), h.shape[1])
    module = plugins.load("scores", name)
    known = Known(head=Head(weight, bias), statistics=Statistics(means, np.ones(CLASSES), feature_means))
    given = plugins.parse_options("scores", name, options, "test")
    state = module.fit(given, known) if hasattr(module, "fit") else None
    ours = module.score(given, known, state, Batch(features=h, logits=h @ weight.T + bias))
    expected = [released(name, one, weight, bias, means, feature_means) for one in h]
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-4)


def test_odin_of_real_images_is_the_release_s(met):
    net, x, *_ = met
    x = x[::6]  # two of each set
    odin, expected = plugins.load("scores", "odin"), []
    for one in x.split(1):
        one = one.clone().requires_grad_()
        z = net(one) / 1000
        functional.cross_entropy(z, z.argmax(1)).backward()
        sign = (one.grad >= 0).double() * 2 - 1
        with torch.no_grad():
            expected.append(float(torch.softmax(net(one - 0.004 * sign) / 1000, 1).max().log()))
    ours = odin.score(odin.Options(temperature=1000.0, epsilon=0.004), Known(), None, net, x)
    np.testing.assert_allclose(ours.numpy(), expected, rtol=0, atol=1e-9)  # of T = 1000 little else is left
