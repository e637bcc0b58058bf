"""ODIN (Liang, Li, Srikant, ICLR 2018): the released CIFAR-10 network, its released scores and Table 2.

ID images are test images 1,000 to 9,999; the first thousand were the release's for choosing options. Noise images are
in 0..1 before they are normalised: N(0.5, 1) clipped, and U(0, 1). ID is positive. FPR95 and the detection error are
those of the release: the mean over the thresholds with a TPR of 0.9495 to 0.9505, and the least balanced error.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from workflow_scripts.agreement.base import Given, counted, inputs, logits, pixels
from workflow_scripts.core.errors import OODError
from workflow_scripts.core.specs import CheckSpec
from workflow_scripts.data.readers import cifar_binary
from workflow_scripts.metrics import ood
from workflow_scripts.models import densenet_bc
from workflow_scripts.networks import foreign
from workflow_scripts.scores import odin
from workflow_scripts.scores.arrays import max_log_softmax
from workflow_scripts.scores.base import Known

SPEC = CheckSpec(files={"network", "test", "base_id", "base_ood", "odin_id", "odin_ood"})

MEAN, STD = (125.3 / 255, 123.0 / 255, 113.9 / 255), (63.0 / 255, 62.1 / 255, 66.7 / 255)
FIRST = 1000
"""The release's scores begin with this test image."""
JPEG = (722, 1259, 1369, 1422, 1783, 2245, 2737, 2935, 3289, 3695, 3718, 4085, 4496, 5277, 5427, 5791, 5896, 6286, 7055,
        7580, 7706, 7707, 7724, 7832, 8117, 8551, 9254, 9476)
"""Test images that a copy of CIFAR-10 with JPEG traces may hold otherwise; all others decide."""
HIGHEST = {"MSP": 1.0, "ODIN": 0.12}
"""The last threshold of the release's grid."""
OPTIONS = odin.Options(temperature=1000.0, epsilon=0.0014, by_std=True)


def network(path: Path) -> nn.Module:
    """The released DenseNet-BC-100-12 in eval mode."""
    net = densenet_bc.build(densenet_bc.Options(depth=100, growth=12, reduction=0.5), 10)
    foreign.load(net, foreign.read(path), path, "DenseNet-BC-100-12")
    return net.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def scores(path: Path, expected: int | None = None) -> np.ndarray:
    """Scores of a released file, one line ``temperature, epsilon, score`` an image. -> (N,) float64.

    Raises:
        OODError: another form, or another number of lines.
    """
    try:
        table = np.loadtxt(path, delimiter=",", ndmin=2)
    except ValueError as error:
        raise OODError(f"{path}: {error}; expected lines `temperature, epsilon, score`") from None
    if table.shape[1] != 3:
        raise OODError(f"{path}: {table.shape[1]} columns, expected temperature, epsilon and score")
    if expected is not None:
        counted(len(table), expected, path, "scores")
    return table[:, 2]


def metrics(id_scores: np.ndarray, ood_scores: np.ndarray, highest: float) -> dict[str, float]:
    """FPR95, detection error, AUROC, AUPR with ID and with OOD positive, in per cent.

    Args:
        highest: the first two are read off 100,000 thresholds from 0.1 to this one, as in the release.
    """
    curve = ood.curve(id_scores, ood_scores)
    grid = np.linspace(0.1, highest, 100_000, endpoint=False)
    tpr = 1 - np.searchsorted(np.sort(id_scores), grid, "left") / len(id_scores)
    fpr = 1 - np.searchsorted(np.sort(ood_scores), grid, "right") / len(ood_scores)
    band = (tpr >= 0.9495) & (tpr <= 0.9505)
    at = band if band.any() else np.abs(tpr - 0.95) == np.abs(tpr - 0.95).min()  # of few images
    return {"FPR95": 100 * float(fpr[at].mean()), "detection error": 50 * float((1 - tpr + fpr).min()),
            "AUROC": 100 * ood.auroc(curve), "AUPR, ID": 100 * ood.average_precision(curve),
            "AUPR, OOD": 100 * ood.average_precision(curve.flipped())}


def perturbed(net: nn.Module, x: Tensor, size: int = 100) -> np.ndarray:
    """ODIN's score as the release writes it, a probability. -> (N,) float64."""
    known = Known(input_std=STD)
    return torch.cat([odin.score(OPTIONS, known, None, net, part) for part in x.split(size)]).exp().numpy()


def compute(given: Given) -> dict[str, float]:
    """Test error, largest difference of the scores, metrics of the released scores, and the two noise sets."""
    images = cifar_binary.read(cifar_binary.Options(files=str(given.file("test")), members="test_batch.bin"), None)
    if len(images) != 10_000:
        raise OODError(f"{given.file('test')}: {len(images):,} images, expected CIFAR-10's 10,000 test images")
    released = {name: scores(given.file(name), len(images) - FIRST) for name in ("base_id", "odin_id")}
    others = {name: scores(given.file(name)) for name in ("base_ood", "odin_ood")}
    net = network(given.file("network"))
    x = inputs(pixels(images, np.arange(len(images))), MEAN, STD).contiguous(memory_format=torch.channels_last)
    z = logits(net, x)
    few = FIRST + given.chosen(len(images) - FIRST)  # those that pass through the gradient
    ours = {"MSP": np.exp(max_log_softmax(z[FIRST:].double()).numpy()),
            "ODIN": perturbed(net, x[torch.from_numpy(few)])}
    found = {"test error": 100 * float((z.argmax(1).numpy() != images.labels).mean())}
    for name, key, index in (("MSP", "base_id", np.arange(FIRST, len(images))), ("ODIN", "odin_id", few)):
        gap = np.abs(ours[name] - released[key][index - FIRST])[~np.isin(index, JPEG)]
        found[f"{name}, largest difference to the released scores"] = float(gap.max())
    for name, key in (("MSP", "base"), ("ODIN", "odin")):
        found |= {f"{name}, released scores, {metric}": number for metric, number in metrics(
            released[f"{key}_id"], others[f"{key}_ood"], HIGHEST[name]).items()}
    random, shape = np.random.RandomState(given.seed), (len(few), 3, 32, 32)
    for kind, noise in (("Gaussian", random.normal(0.5, 1, shape).clip(0, 1)), ("uniform", random.uniform(size=shape))):
        mean, std = (np.float32(part)[:, None, None] for part in (MEAN, STD))
        y = torch.from_numpy((noise.astype(np.float32) - mean) / std)
        theirs = {"MSP": np.exp(max_log_softmax(logits(net, y).double()).numpy()), "ODIN": perturbed(net, y)}
        for name in ours:
            result = metrics(ours[name], theirs[name], HIGHEST[name])
            found |= {f"{name}, {kind} noise, {metric}": result[metric] for metric in ("FPR95", "AUROC")}
    return found
