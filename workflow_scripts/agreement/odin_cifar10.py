"""ODIN (Liang, Li, Srikant, ICLR 2018): the released CIFAR-10 network, its released scores and Table 2.

ID images are test images 1,000 to 9,999; the first thousand were the release's for choosing options. ID is positive.
FPR95 and the detection error are those of the release: the mean over the thresholds with a TPR of 0.9495 to 0.9505, and
the least balanced error.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from workflow_scripts.agreement.base import Given, counted, densenet, inputs, labelled, logits, paired, pixels
from workflow_scripts.core.errors import OODError
from workflow_scripts.core.specs import CheckSpec
from workflow_scripts.data.readers import cifar_binary
from workflow_scripts.metrics import ood
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
SOURCES = ("Example output", "Table 2")
"""Where metrics of the released scores are printed: the release's README and the paper, of different runs."""
OPTIONS = odin.Options(temperature=1000.0, epsilon=0.0014, by_std=True)


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


class Passes:
    """MSP and ODIN's score of images, as probabilities, which share a pass."""

    def __init__(self, path: Path):
        self.quick, self.plain = densenet(path, 10), densenet(path, 10, folded=False)
        self.known = Known(input_std=STD)

    def scores(self, x: Tensor, size: int = 16) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Inputs (N, 3, 32, 32) -> the two scores (N,) float64 by name, and the predicted classes (N,)."""
        found, classes = {"MSP": [], "ODIN": []}, []
        for part in x.contiguous(memory_format=torch.channels_last).split(size):
            moved, z = odin.perturbed(OPTIONS, self.known, self.plain, part)
            found["MSP"].append(max_log_softmax(z.double()))
            found["ODIN"].append(odin.confidence(OPTIONS, self.quick, moved.contiguous()))
            classes.append(z.argmax(1))
        return {name: torch.cat(parts).exp().numpy() for name, parts in found.items()}, torch.cat(classes).numpy()


def compute(given: Given) -> dict[str, float]:
    """Test error, largest difference of the scores and metrics of the released scores."""
    images = cifar_binary.read(cifar_binary.Options(files=str(given.file("test")), members="test_batch.bin"), None)
    if len(images) != 10_000:
        raise OODError(f"{given.file('test')}: {len(images):,} images, expected CIFAR-10's 10,000 test images")
    released = {name: scores(given.file(name), len(images) - FIRST) for name in ("base_id", "odin_id")}
    others = {name: scores(given.file(name)) for name in ("base_ood", "odin_ood")}
    passes = Passes(given.file("network"))
    head, rest = given.chosen(FIRST), FIRST + given.chosen(len(images) - FIRST)
    ours, classes = passes.scores(inputs(pixels(images, rest), MEAN, STD))
    first = logits(passes.quick, inputs(pixels(images, head), MEAN, STD)).argmax(1).numpy()
    wrong = np.concatenate([first, classes]) != images.labels[np.concatenate([head, rest])]
    found = {"test error": 100 * float(labelled(wrong, given.file("test")).mean())}
    for name, key in (("MSP", "base"), ("ODIN", "odin")):
        gap = np.abs(ours[name] - released[f"{key}_id"][rest - FIRST])[~np.isin(rest, JPEG)]
        paired(gap, given.file(f"{key}_id"), given.file("test"))
        found[f"{name}, largest difference to the released scores"] = float(gap.max())
        result = metrics(released[f"{key}_id"], others[f"{key}_ood"], HIGHEST[name])
        found |= {f"{source}: {name}, {metric}": number for source in SOURCES for metric, number in result.items()}
    return found
