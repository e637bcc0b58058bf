"""SVHN, cropped digits, official MATLAB files: ``X`` uint8 (32, 32, 3, N) and ``y`` (N, 1) with 10 for the digit 0."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import scipy.io
from annotated_types import MinLen

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.files import sha256
from workflow_scripts.core.sources import shown
from workflow_scripts.core.specs import ReaderSpec
from workflow_scripts.data.reading import Images, array_blocks, raw_files

SPEC = ReaderSpec(defects={
    "himplos.1h-3": ("all of SVHN's 26,032 test images are scored, although a subset of 10,000 is described",
                     "test sets: all of them in the place of the subset, in a group of their own (`far+1h-3`)")})


@dataclass(frozen=True)
class Options:
    files: str | Annotated[tuple[str, ...], MinLen(1)]
    """The `.mat` file: a path below the data root, or a list of alternatives."""


def read(options: Options, root: Path | None) -> Images:
    """One `.mat` file; it is read whole (test 80 MB, train 225 MB, extra 1.6 GB).

    Raises:
        OODError: missing, truncated, a MATLAB 7.3 file, or not SVHN's two arrays.
    """
    path = raw_files(options.files, root)[0]
    again = "take SVHN's format 2 (cropped digits) from its home page again"
    try:
        content = scipy.io.loadmat(path, variable_names=("X", "y"))
    except NotImplementedError:
        raise OODError(f"{path}: a MATLAB 7.3 (HDF5) file, expected version 5 as SVHN publishes it; {again}, "
                       "or save it with -v7") from None
    except Exception as error:  # scipy raises what its parser stumbles over: ValueError, TypeError, zlib.error, ...
        raise OODError(f"{path}: not a readable MATLAB 5 file ({type(error).__name__}: {error}); {again}") from None
    images, labels = content.get("X"), content.get("y")
    if images is None or labels is None:
        raise OODError(f"{path}: arrays X and y expected, found "
                       f"{sorted(k for k in content if not k.startswith('_')) or 'neither'}; {again}")
    if images.ndim != 4 or images.shape[2] != 3 or images.dtype != np.uint8 or labels.size != images.shape[3]:
        raise OODError(f"{path}: X uint8 (32, 32, 3, N) and y (N, 1) expected, found X {images.dtype} {images.shape} "
                       f"and y {labels.shape}; {again}")
    labels = labels.ravel().astype(np.int64)
    if len(labels) and not 1 <= labels.min() <= labels.max() <= 10:
        raise OODError(f"{path}: labels 1..10 expected, found {labels.min()}..{labels.max()}; {again}")
    return Images(
        labels=labels % 10,
        names=[f"{path.name}:{i}" for i in range(len(labels))],
        classes=tuple(str(digit) for digit in range(10)),
        sources={shown(path, root): sha256(path)},
        blocks=array_blocks(images.transpose(3, 0, 1, 2)),
    )
