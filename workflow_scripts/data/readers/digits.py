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

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.files import sha256
from workflow_scripts.core.specs import ReaderSpec
from workflow_scripts.data.reading import Images, array_blocks

SPEC = ReaderSpec()


@dataclass(frozen=True)
class Options:
    classes: tuple[Annotated[int, Ge(0), Le(9)], ...] = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
    """Digits to take; the label of an image is its digit's place in this list."""
    part: Literal["train", "test", "all"] = "all"
    """`train`: the first `train_per_class` of each digit after shuffling; `test`: the others; `all`: both."""
    train_per_class: Annotated[int, Ge(1)] = 125
    """Images of each digit that make up the train part (the rarest digit has 174)."""
    seed: Annotated[int, Ge(0)] = 0
    """Seed of the split, of the colours and of the places."""
    tint: Annotated[float, Ge(0), Le(0.5)] = 0.0
    """0: white strokes on black. Otherwise each image gets a random background colour with channels in 0..tint of the
    range and a random stroke colour with channels in 1-tint..1."""
    canvas: Annotated[int, Ge(8)] = 8
    """Side of a canvas of the background's colour, in pixels of the scan (8x8), on which the digit lies at a random
    place; 8: the scan alone."""


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


def colours(n: int, tint: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Stroke and background colours of n images, uniform in 1-tint..1 and 0..tint. -> two (n, 1, 1, 3)."""
    strokes, grounds = np.random.RandomState(seed + 1).uniform(0, tint, size=(2, n, 1, 1, 3))
    return 1 - strokes, grounds


def placed(scan: np.ndarray, side: int, seed: int) -> np.ndarray:
    """Each scan at a random place on an empty canvas. (N, 8, 8) -> (N, side, side)."""
    corner = np.random.RandomState(seed + 2).randint(0, side - 8 + 1, (len(scan), 2, 1))
    rows, columns = (corner[:, axis] + np.arange(8) for axis in (0, 1))  # (N, 8)
    canvas = np.zeros((len(scan), side, side))
    canvas[np.arange(len(scan))[:, None, None], rows[:, :, None], columns[:, None]] = scan
    return canvas


def read(options: Options, root: Path | None) -> Images:
    """The chosen digits as RGB images of 8x8, or of the canvas (choose a geometry such as squash32).

    Raises:
        OODError: a class is named twice.
    """
    if len(set(options.classes)) != len(options.classes):
        raise OODError(f"classes: a digit is named twice in {list(options.classes)}")
    scan, digit, sources = scans()
    index = split(digit, options)
    # colours belong to the image, whatever the part or the classes taken
    stroke, ground = colours(len(scan), options.tint, options.seed)
    scan = placed(scan, options.canvas, options.seed)
    pixels = np.rint((ground + scan[..., None] * (stroke - ground)) * 255).astype(np.uint8)[index]  # (n, 8, 8, 3)
    place = {c: i for i, c in enumerate(options.classes)}
    return Images(
        labels=np.array([place[d] for d in digit[index].tolist()], np.int64),
        names=[f"digits.csv.gz:{i}" for i in index.tolist()],
        classes=tuple(str(c) for c in options.classes),
        sources=sources,
        blocks=array_blocks(pixels),
    )
