"""Real pictures that scikit-image carries in its wheel: patches of them, or its faces; nothing is downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import skimage
from annotated_types import Ge, MinLen
from PIL import Image

from workflow_scripts.core.errors import OODError, unknown
from workflow_scripts.core.files import sha256
from workflow_scripts.core.specs import ReaderSpec
from workflow_scripts.data.reading import Images, array_blocks, unlabelled

# Name (that of the function in skimage.data where there is one) -> file in skimage/data. Only files inside the wheel.
PICTURES = {
    "astronaut": "astronaut.png", "brick": "brick.png", "camera": "camera.png", "cat": "chelsea.png",
    "cell": "cell.png", "clock": "clock_motion.png", "coffee": "coffee.png", "coins": "coins.png",
    "grass": "grass.png", "gravel": "gravel.png", "hubble_deep_field": "hubble_deep_field.jpg",
    "immunohistochemistry": "ihc.png", "microaneurysms": "microaneurysms.png", "moon": "moon.png",
    "motorcycle": "motorcycle_left.png", "page": "page.png", "retina": "retina.jpg", "rocket": "rocket.jpg",
    "text": "text.png",
}
# lfw_subset.npy: 200 grey images of 25x25 from Labeled Faces in the Wild; the first 100 show faces, the others none.
WHOLE = {"faces": slice(0, 100), "no_faces": slice(100, 200)}


SPEC = ReaderSpec()


@dataclass(frozen=True)
class Options:
    pictures: Annotated[tuple[str, ...], MinLen(1)]
    """Pictures by name: those of `skimage.data` inside the wheel (astronaut, brick, coffee, ...), or `faces` and
    `no_faces`, the two halves of its Labeled-Faces-in-the-Wild subset (100 images of 25x25 each, taken whole)."""
    size: Annotated[int, Ge(1)] = 64
    """Side of the square patches in pixels."""
    stride: Annotated[int, Ge(1)] = 32
    """Distance of neighbouring patches in pixels."""
    count: Annotated[int, Ge(1)] = 200
    """At most so many patches of each picture, drawn from the grid without replacement."""
    seed: Annotated[int, Ge(0)] = 0
    """Seed of that draw."""


def _file(name: str) -> Path:
    path = Path(skimage.__file__).parent / "data" / name
    if not path.is_file():
        raise OODError(f"skimage/data/{name} is not in the installed scikit-image {skimage.__version__}; "
                       "install the pinned version")
    return path


def picture(name: str) -> np.ndarray:
    """A picture by name. -> uint8 (H, W, 3); grey ones get three equal channels."""
    with Image.open(_file(PICTURES[name])) as image:
        return np.asarray(image.convert("RGB"))


def whole(name: str) -> np.ndarray:
    """One half of the Labeled-Faces-in-the-Wild subset. -> uint8 (100, 25, 25, 3), three equal channels."""
    grey = np.load(_file("lfw_subset.npy"), allow_pickle=False)[WHOLE[name]]
    return np.repeat(np.rint(grey * 255).astype(np.uint8)[..., None], 3, axis=-1)


def patches(image: np.ndarray, options: Options) -> tuple[np.ndarray, list[str]]:
    """Patches on a grid. uint8 (H, W, 3) -> (uint8 (n, size, size, 3), their ``x,y`` corners), ordered by y, then x."""
    size, stride = options.size, options.stride
    windows = np.lib.stride_tricks.sliding_window_view(image, (size, size), axis=(0, 1))[::stride, ::stride]
    rows, columns = windows.shape[:2]
    chosen = np.sort(np.random.RandomState(options.seed).permutation(rows * columns)[:options.count])
    y, x = np.divmod(chosen, columns)
    return windows[y, x].transpose(0, 2, 3, 1), [f"{a},{b}" for a, b in zip(x * stride, y * stride, strict=True)]


def read(options: Options, root: Path | None) -> Images:
    """The chosen pictures' patches, all of one size (choose a geometry such as squash32); ``root`` is not used.

    Raises:
        OODError: a picture is not known or smaller than a patch; whole pictures are mixed with patches.
    """
    for name in options.pictures:
        if name not in PICTURES and name not in WHOLE:
            raise unknown("pictures", name, [*PICTURES, *WHOLE])
    pixels, names, sources = [], [], {}
    for name in options.pictures:
        file = "lfw_subset.npy" if name in WHOLE else PICTURES[name]
        if name in WHOLE:
            block = whole(name)
            labels = [str(i) for i in range(WHOLE[name].start, WHOLE[name].stop)]
        else:
            image = picture(name)
            if min(image.shape[:2]) < options.size:
                raise OODError(f"size: patches of {options.size} do not fit into picture '{name}' "
                               f"({image.shape[1]}x{image.shape[0]})")
            block, labels = patches(image, options)
        pixels.append(block)
        names += [f"{name}:{label}" for label in labels]
        sources[f"scikit-image {skimage.__version__}: {file}"] = sha256(_file(file))
    if len({block.shape[1:] for block in pixels}) > 1:
        raise OODError(f"pictures: {list(options.pictures)} mixes whole images of 25x25 with patches of "
                       f"{options.size}; make them two datasets or set size: 25")
    pixels = np.concatenate(pixels)
    return Images(unlabelled(len(pixels)), names, (), sources, array_blocks(pixels))
