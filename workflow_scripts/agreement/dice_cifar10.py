"""DICE (Sun, Li, ECCV 2022): the released CIFAR-10 network and its released mean features of the train images.

DICE ranks weights by mean contributions, so beside the network its score depends on the mean features alone. Where
train images are missing, the mean of the others is that of a sample without replacement: it differs from the mean of
all 50,000 by a standard error that the number of images gives.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from workflow_scripts.agreement.base import Given, densenet, inputs, pixels
from workflow_scripts.core.errors import OODError
from workflow_scripts.core.specs import CheckSpec
from workflow_scripts.data.readers import cifar_binary
from workflow_scripts.data.reading import Images
from workflow_scripts.models.densenet_bc import DenseNet

SPEC = CheckSpec(files={"network", "means", "train"})

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
WHOLE = 50_000


def released_means(path: Path, features: int) -> np.ndarray:
    """Mean features of the train images. -> (D,) float64.

    Raises:
        OODError: no array of D numbers.
    """
    try:
        means = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise OODError(f"{path}: {error}; expected an array of {features} numbers") from None
    if means.shape != (features,):
        raise OODError(f"{path}: shape {means.shape}, expected ({features},), the network's features")
    return means.astype(np.float64)


def features(net: DenseNet, photos: np.ndarray, size: int = 16) -> np.ndarray:
    """Penultimate features, (n, D) float64."""
    with torch.inference_mode():
        return np.concatenate([net.features(inputs(photos[i:i + size], MEAN, STD)).double().numpy()
                               for i in range(0, len(photos), size)])


def compared(given: Given, net: DenseNet, train: Images) -> dict[str, float]:
    """Mean features of the train images against the released ones (role ``means``)."""
    index = given.chosen(len(train))
    found = features(net, pixels(train, index))
    means = released_means(given.file("means"), found.shape[1])
    n, absent = len(found), max(WHOLE - len(found), 0)
    # The mean of n of N images drawn without replacement has this standard error about the mean of all N.
    error = found.std(0, ddof=1) * np.sqrt(absent / (WHOLE * n)) if absent else np.zeros(len(means))
    gap = np.abs(found.mean(0) - means)
    return {"mean features, largest difference beyond four standard errors": float((gap - 4 * error).clip(0).max()),
            "mean features, correlation": float(np.corrcoef(found.mean(0), means)[0, 1])}


def compute(given: Given) -> dict[str, float]:
    """Largest difference of a mean feature in standard errors of the images that are not looked at."""
    paths = tuple(map(str, given.files["train"]))
    train = cifar_binary.read(cifar_binary.Options(files=paths, members="data_batch_*.bin"), None)
    return compared(given, densenet(given.file("network"), 10), train)
