"""Outlier Exposure on MNIST (Hendrycks, Mazeika, Dietterich, ICLR 2019): the released networks and result files.

The score is the maximum softmax probability. Error detection: wrong predictions are positive. OOD detection: OOD is
positive, 10,000 ID images against 2,000 OOD images, the mean of ten draws. Calibration: the confidence is the softmax
probability at the released temperature, which was tuned on validation images whose numbers are not published; OOD
images count as wrong. The release draws without a seed: its means differ from ours by the error of the draws.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from workflow_scripts.agreement.base import Given, counted, labelled, logits, pixels
from workflow_scripts.core.errors import OODError
from workflow_scripts.core.specs import CheckSpec
from workflow_scripts.data.images import geometry
from workflow_scripts.data.readers import cifar_binary
from workflow_scripts.data.readers.idx_images import array
from workflow_scripts.metrics import ood
from workflow_scripts.metrics.rules.base import hendrycks_fpr
from workflow_scripts.models import mnist_convnet
from workflow_scripts.networks import foreign

SPEC = CheckSpec(files={"images", "labels", "fashion", "cifar", "baseline", "oe_scratch", "oe_tune", "calib_baseline",
                        "calib_oe_scratch", "calib_oe_tune"})

DRAWS = 10
TEMPERATURES = {"baseline": 1.173, "oe_scratch": 1.100, "oe_tune": 1.111}
"""As the release's calib_*_test.txt print them."""


def network(path: Path) -> nn.Module:
    """A released network in eval mode.

    Raises:
        OODError: the file has other tensors.
    """
    net, state = mnist_convnet.build(mnist_convnet.Options(), 10), foreign.read(path)
    own = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if own != found:
        raise OODError(f"{path}: tensors {found}, expected {own}; it is no network of this release")
    net.load_state_dict(state)
    return net.eval()


def calibration(confidence: np.ndarray, correct: np.ndarray) -> dict[str, float]:
    """The release's errors in per cent, over bins of 100 images by rising confidence, the last bin left out as there.

    Args:
        confidence: (N,) in 0..1.
        correct: (N,) whether the prediction is right.
    """
    order = np.argsort(confidence)
    confidence, correct = confidence[order], correct[order].astype(np.float64)
    count = (len(order) // 100 - 1) * 100
    gaps = np.abs((confidence - correct)[:count].reshape(-1, 100).mean(1))
    wrong = 1 - correct
    return {"RMS": 100 * float(np.sqrt(100 / len(order) * (gaps ** 2).sum())),
            "MAD": 100 * float(100 / len(order) * gaps.sum()),
            "soft F1": 200 * float(((1 - confidence) * wrong).sum() / (1 - confidence + wrong).sum())}


def detection(positive: np.ndarray, negative: np.ndarray) -> dict[str, float]:
    """FPR95 (the recall nearest to 95 %), AUROC, AUPR in per cent. Scores higher = more positive."""
    curve = ood.curve(positive, negative)
    return {"FPR95": 100 * hendrycks_fpr(curve), "AUROC": 100 * ood.auroc(curve),
            "AUPR": 100 * ood.average_precision(curve)}


def sets(given: Given, test: np.ndarray) -> dict[str, np.ndarray]:
    """OOD sets that can be had: name -> images, float32 (M, 28, 28) in 0..1."""
    random, count = np.random.RandomState(given.seed), DRAWS * (len(test) // 5)
    return {
        "Gaussian noise": np.clip(random.normal(0.5, 0.5, (count, 28, 28)), 0, 1).astype(np.float32),
        "Bernoulli noise": random.binomial(1, 0.5, (count, 28, 28)).astype(np.float32),
        "CIFAR-10": grey(given.file("cifar")),
        "Fashion-MNIST": array(given.file("fashion"), 3) / np.float32(255),
        "negative MNIST": 1 - test}


def grey(path: Path) -> np.ndarray:
    """CIFAR-10's test images as the release has them: resized to 28x28, then grey. -> float32 (N, 28, 28) in 0..1."""
    images = cifar_binary.read(cifar_binary.Options(files=str(path), members="test_batch.bin"), None)
    small = geometry.resize(pixels(images, np.arange(len(images))), "squash28")
    return (small @ np.float32([0.2989, 0.587, 0.114]) + 0.5).astype(np.uint8) / np.float32(255)


def compute(given: Given) -> dict[str, float]:
    """The release's test errors, error detection, OOD detection and calibration."""
    test, labels = array(given.file("images"), 3) / np.float32(255), array(given.file("labels"), 1)
    counted(len(labels), len(test), given.file("labels"), "labels")
    others = sets(given, test)
    found: dict[str, float] = {}
    for name, temperature in TEMPERATURES.items():
        plain, tuned = network(given.file(name)), network(given.file(f"calib_{name}"))

        def confidence(net: nn.Module, images: np.ndarray, at: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
            z = logits(net, torch.from_numpy(images)[:, None].expand(-1, 3, -1, -1), 1000)
            return functional.softmax(z / at, 1).amax(1).numpy().astype(np.float64), z.argmax(1).numpy()

        score, predicted = confidence(plain, test)
        right = ~labelled(predicted != labels, given.file("labels"))
        found[f"{name}: test error"] = 100 * (1 - right.mean())
        found |= {f"{name}: errors, {metric}": number for metric, number in detection(
            -score[~right], -score[right]).items()}
        sure, predicted = confidence(tuned, test, temperature)
        correct = predicted == labels
        found[f"{name}, calibrated: test error"] = 100 * (1 - correct.mean())
        found |= {f"{name}, calibrated: MNIST, {metric}": number
                  for metric, number in calibration(sure, correct).items()}
        for other, images in others.items():
            out, out_sure = confidence(plain, images)[0], confidence(tuned, images, temperature)[0]
            random = np.random.RandomState(given.seed)
            drawn = [random.choice(len(images), len(test) // 5, replace=False) for _ in range(DRAWS)]
            found |= _mean(f"{name}: {other}", [detection(-out[index], -score) for index in drawn])
            found |= _mean(f"{name}, calibrated: {other}", [calibration(
                np.concatenate([out_sure[index], sure]),
                np.concatenate([np.zeros(len(index), bool), correct])) for index in drawn])
    return found


def _mean(name: str, draws: list[dict[str, float]]) -> dict[str, float]:
    return {f"{name}, {metric}": float(np.mean([draw[metric] for draw in draws])) for metric in draws[0]}
