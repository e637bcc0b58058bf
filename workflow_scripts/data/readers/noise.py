"""The papers' noise sets. They are made in the network's input space, -1..1: no resizing, no normalisation.

gaussian: clip(N(0, 0.5^2), -1, 1); uniform: U(-1, 1) (bgresample 1c, goe 2c); blobs: Bernoulli(0.7) arrays of
H x W x 3, Gaussian-filtered with sigma 1.5 over height, width *and* channels, values below 0.75 set to 0, then 2x - 1
(goe 2c). The papers draw 10,000 without a seed; here the seed is an option and the stream is numpy's frozen legacy one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge
from scipy.ndimage import gaussian_filter

from workflow_scripts.core.specs import ReaderSpec
from workflow_scripts.data.reading import BLOCK, Images, unlabelled

SPEC = ReaderSpec()


@dataclass(frozen=True)
class Options:
    kind: Literal["gaussian", "uniform", "blobs"]
    """Which noise."""
    count: Annotated[int, Ge(1)] = 10000
    """Images; the papers take 10,000."""
    size: Annotated[int, Ge(1)] = 32
    """Height and width."""
    seed: Annotated[int, Ge(0)] = 0
    """Seed of the draw."""


def draw(kind: str, random: np.random.RandomState, n: int, size: int) -> np.ndarray:
    """The next n images of a stream. -> float32 (n, 3, size, size)."""
    if kind == "gaussian":
        return np.clip(random.normal(scale=0.5, size=(n, 3, size, size)), -1, 1).astype(np.float32)
    if kind == "uniform":
        return random.uniform(-1, 1, size=(n, 3, size, size)).astype(np.float32)
    fields = random.binomial(n=1, p=0.7, size=(n, size, size, 3)).astype(np.float32)
    fields = gaussian_filter(fields, sigma=(0, 1.5, 1.5, 1.5), mode="nearest")
    fields[fields < 0.75] = 0
    return np.ascontiguousarray((2 * fields - 1).transpose(0, 3, 1, 2))  # (n, 3, size, size)


def read(options: Options, root: Path | None) -> Images:
    """Noise as network inputs; ``root`` is not used."""

    def blocks(index: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        random = np.random.RandomState(options.seed)
        for start in range(0, options.count, BLOCK):
            block = draw(options.kind, random, min(BLOCK, options.count - start), options.size)
            first, last = np.searchsorted(index, (start, start + len(block)))  # index is ascending
            if last > first:
                yield int(first), block[index[first:last] - start]

    return Images(
        labels=unlabelled(options.count),
        names=[f"{options.kind}:{options.seed}:{i}" for i in range(options.count)],
        classes=(),
        sources={},
        blocks=blocks,
        kind="inputs",
    )
