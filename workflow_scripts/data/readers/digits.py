"""scikit-learn's digits: 1,797 scans of handwritten digits, 8x8, 17 grey levels; bundled, so nothing is downloaded.

The file is read from where scikit-learn lies, without importing it (that takes seconds).
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Le

from workflow_scripts.data.base import Images, array_blocks
from workflow_scripts.errors import OODError
from workflow_scripts.files import sha256

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601 weights of R, G, B


@dataclass(frozen=True)
class Options:
    classes: tuple[Annotated[int, Ge(0), Le(9)], ...] = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
    """Digits to take; the label of an image is its digit's place in this list."""
    part: Literal["train", "test", "all"] = "all"
    """`train`: the first `train_per_class` of each digit after shuffling; `test`: the others; `all`: both."""
    train_per_class: Annotated[int, Ge(1)] = 125
    """Images of each digit that make up the train part (the rarest digit has 174)."""
    seed: Annotated[int, Ge(0)] = 0
    """Seed of the split and of the colours."""
    contrast: Annotated[float, Ge(0), Le(0.5)] = 0.0
    """0: white strokes on black. Otherwise each image gets a random stroke and a random background colour, the stroke
    brighter (ITU-R BT.601, 0..1) by at least this much."""


def scans() -> tuple[np.ndarray, np.ndarray, dict[str, str]]:
    """All digits. -> (images float64 (1797, 8, 8) in 0..1, labels int64 (1797,), sources)."""
    package = importlib.util.find_spec("sklearn")
    path = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz" if package else None
    if path is None or not path.is_file():
        raise OODError("scikit-learn's digits (sklearn/datasets/data/digits.csv.gz) are not there; "
                       "install the pinned scikit-learn again")
    table = np.loadtxt(path, delimiter=",")
    name = f"scikit-learn {importlib.metadata.version('scikit-learn')}: digits.csv.gz"
    return table[:, :-1].reshape(-1, 8, 8) / 16, table[:, -1].astype(np.int64), {name: sha256(path)}


def split(labels: np.ndarray, options: Options) -> np.ndarray:
    """Indices of the wanted part, ascending. labels (N,) -> int64 (M,)."""
    random = np.random.RandomState(options.seed)  # a frozen stream: the same split under every numpy
    order = random.permutation(len(labels))
    rank = np.empty(len(labels), np.int64)  # place of each image among its class, after shuffling
    for digit in range(10):
        members = order[labels[order] == digit]
        rank[members] = np.arange(len(members))
    wanted = np.isin(labels, options.classes)
    if options.part == "train":
        wanted &= rank < options.train_per_class
    elif options.part == "test":
        wanted &= rank >= options.train_per_class
    return np.flatnonzero(wanted)


def colours(n: int, contrast: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Stroke and background colour of n images, uniform in the RGB cube given the contrast: two (n, 3) in 0..1."""
    random = np.random.RandomState(seed + 1)
    stroke, ground = random.uniform(size=(2, n, 3))
    while (close := (stroke - ground) @ LUMA < contrast).any():
        stroke[close], ground[close] = random.uniform(size=(2, close.sum(), 3))
    return stroke, ground


def read(options: Options, root: Path | None) -> Images:
    """The chosen digits as 8x8 RGB images (choose a geometry such as squash32); ``root`` is not used.

    Raises:
        OODError: a part is empty, or a class is named twice.
    """
    if len(set(options.classes)) != len(options.classes):
        raise OODError(f"classes: a digit is named twice in {list(options.classes)}")
    scan, digit, sources = scans()
    index = split(digit, options)
    # colours belong to the image, whatever the part or the classes taken
    stroke, ground = colours(len(scan), options.contrast, options.seed) if options.contrast else (1.0, 0.0)
    grey = scan[..., None]
    pixels = ground_and_stroke(grey, stroke, ground)[index]
    place = {c: i for i, c in enumerate(options.classes)}
    return Images(
        labels=np.array([place[d] for d in digit[index].tolist()], np.int64),
        names=[f"digits.csv.gz:{i}" for i in index.tolist()],
        classes=tuple(str(c) for c in options.classes),
        sources=sources,
        blocks=array_blocks(pixels),
    )


def ground_and_stroke(ink: np.ndarray, stroke: np.ndarray | float, ground: np.ndarray | float) -> np.ndarray:
    """Paint. ink (N, 8, 8, 1) in 0..1; colours (N, 3) or scalars -> uint8 (N, 8, 8, 3)."""
    stroke, ground = (np.reshape(c, (-1, 1, 1, 3 if np.ndim(c) else 1)) for c in (stroke, ground))
    return np.broadcast_to(np.rint((ground + ink * (stroke - ground)) * 255), (*ink.shape[:3], 3)).astype(np.uint8)
