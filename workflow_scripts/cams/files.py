"""Files of pseudo-masks: ``masks`` (N, H, W) uint8 or uint16, compressed; ``classes`` (N,), the class of each map.

Label 0 is background, c + 1 class c; 16 bits where there are more than 255 classes. Attributes: ``empty`` images whose
activation is zero everywhere, ``absent`` classes without a pixel, ``options``.
"""

from __future__ import annotations

import h5py
import numpy as np

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.files import not_to_blame

_CHUNK = 2**20  # bytes of labels per HDF5 chunk


def create_masks(file: h5py.File, count: int, height: int, width: int, classes: int) -> h5py.Dataset:
    """An empty ``masks`` dataset for K = ``classes``."""
    kind = np.uint8 if classes <= 255 else np.uint16
    rows = max(1, min(count, _CHUNK // (height * width * np.dtype(kind).itemsize)))
    return file.create_dataset("masks", (count, height, width), kind, chunks=(rows, height, width), compression="gzip",
                               compression_opts=6, track_times=False)


def read_masks(path: str, count: int, classes: int) -> np.ndarray:
    """All pseudo-masks. -> (N, H, W) uint8, or int16 where there are more than 255 classes.

    Raises:
        OODError: no file of pseudo-masks, another number of images, or a label above K.
    """
    try:
        with h5py.File(path, "r") as file:
            masks = file["masks"][:]
    except (OSError, KeyError) as error:
        not_to_blame(path, error)
        raise OODError(f"{path}: no file of pseudo-masks ({error}); delete it and run again") from None
    if len(masks) != count:
        raise OODError(f"{path}: {len(masks)} pseudo-masks for {count} train images; both must come from the same "
                       "images in the same order (keys `images` and `masks` of the recipe)")
    if masks.max() > classes:
        raise OODError(f"{path}: label {masks.max()} with {classes} classes (labels are 0 to {classes}); the maps are "
                       "of another ID set")
    return masks if masks.dtype == np.uint8 else masks.astype(np.int16)
