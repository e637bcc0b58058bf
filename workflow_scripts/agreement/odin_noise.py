"""ODIN (Liang, Li, Srikant, ICLR 2018), Table 2: the released CIFAR-10 network on noise.

ID scores are the released ones, which ``odin_cifar10`` holds ours to. Noise images are in 0..1
before they are normalised: N(0.5, 1) clipped, and U(0, 1). ID is positive; the metrics are those of ``odin_cifar10``.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from workflow_scripts.agreement.base import Given
from workflow_scripts.agreement.odin_cifar10 import HIGHEST, MEAN, STD, Passes, metrics, scores
from workflow_scripts.core.specs import CheckSpec

SPEC = CheckSpec(files={"network", "base_id", "odin_id"})

DRAWS = 3000
"""Images of each noise."""


def noise(kind: str, random: np.random.RandomState, count: int) -> Tensor:
    """Network inputs (count, 3, 32, 32) of one kind of noise."""
    shape = (count, 3, 32, 32)
    drawn = random.normal(0.5, 1, shape).clip(0, 1) if kind == "Gaussian" else random.uniform(size=shape)
    mean, std = (np.float32(part)[:, None, None] for part in (MEAN, STD))
    return torch.from_numpy((drawn.astype(np.float32) - mean) / std)


def compute(given: Given) -> dict[str, float]:
    """FPR95 and AUROC of each noise, by each score."""
    released = {name: scores(given.file(key)) for name, key in (("MSP", "base_id"), ("ODIN", "odin_id"))}
    passes, random = Passes(given.file("network")), np.random.RandomState(given.seed)
    found = {}
    for kind in ("Gaussian", "uniform"):
        theirs, _ = passes.scores(noise(kind, random, len(given.chosen(DRAWS))))
        for name, ours in released.items():
            result = metrics(ours, theirs[name], HIGHEST[name])
            found |= {f"{name}, {kind} noise, {metric}": result[metric] for metric in ("FPR95", "AUROC")}
    return found
