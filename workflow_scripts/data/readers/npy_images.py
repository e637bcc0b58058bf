"""Images as one NumPy array uint8 (N, H, W, 3) on the disk, e.g. the 300,000 random images of Outlier Exposure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from annotated_types import MinLen

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.files import sha256
from workflow_scripts.core.sources import shown
from workflow_scripts.core.specs import ReaderSpec
from workflow_scripts.data.reading import Images, Numbered, array_blocks, raw_files, unlabelled

SPEC = ReaderSpec()


@dataclass(frozen=True)
class Options:
    files: str | Annotated[tuple[str, ...], MinLen(1)]
    """The `.npy` file: a path below the data root, or a list of alternatives."""


def read(options: Options, root: Path | None) -> Images:
    """The array stays on the disk until blocks are read.

    Raises:
        OODError: missing, truncated, pickled, or not an array of images.
    """
    path = raw_files(options.files, root)[0]
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a broken header raises ValueError, SyntaxError, tokenize's errors, ...
        raise OODError(f"{path}: not a whole .npy file ({type(error).__name__}: {error}); fetch it again") from None
    if getattr(array, "dtype", None) != np.uint8 or array.ndim != 4 or array.shape[3] != 3 or not len(array):
        raise OODError(f"{path}: an array of images uint8 (N, H, W, 3) expected, found "
                       f"{getattr(array, 'dtype', type(array).__name__)} {getattr(array, 'shape', '')}; the reader "
                       "arrays takes other shapes, and bool, uint16 and float")
    return Images(labels=unlabelled(len(array)), names=Numbered(path.name, np.arange(len(array))), classes=(),
                  sources={shown(path, root): sha256(path)}, blocks=array_blocks(array))
