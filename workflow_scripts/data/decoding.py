"""Files of images (JPEG, PNG, ...) to pixels."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image


def decode(content: bytes) -> np.ndarray:
    """Decode one image; grey, palette, CMYK and transparent ones become RGB. -> uint8 (H, W, 3).

    Raises:
        ValueError: the content is empty or not a whole image.
    """
    if not content:
        raise ValueError("empty file")
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(content)) as image:
            warnings.simplefilter("ignore")  # PIL comments on odd metadata
            return np.array(image.convert("RGB"))
    except Exception as error:  # PIL's decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        raise ValueError(f"{type(error).__name__}: {error}") from None
