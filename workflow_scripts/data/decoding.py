"""Files of images (JPEG, PNG, ...) to pixels, uint8 RGB, as torchvision's loader (PIL) gives them, but for more bits.

======================  ================================================================================================
in the file             becomes
======================  ================================================================================================
grey, black and white   three equal channels; black and white are 0 and 255
palette                 the colours it names
CMYK, YCbCr, LAB        RGB by PIL's formula
alpha                   dropped; transparent pixels have the colour that is stored below them
16 bits a channel       the high byte of each value (65,535 becomes 255), grey as PIL does it for colour
float                   in 0..1: 255 times, rounded; other values are refused, since nothing says what they mean
32-bit whole numbers    refused, for the same reason
EXIF orientation        not applied, as in torchvision and the papers' code; PIL itself turns TIFF files
several pages           the first one
======================  ================================================================================================

What happened to an image is said with it (:attr:`Decoded.remarks`), so that a set can count it.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

from workflow_scripts.core.errors import OODError

HIGH_BYTE = "images of 16 bits a channel, of which the high byte is taken"
DARK = "images of 16 bits that use the low 12 at most, so that they come out nearly black"
TIMES_255 = "images of float values in 0..1, times 255"
_ORIENTATION = 0x0112  # EXIF tag; 1 is upright
_BITS = 258  # TIFF tag: bits of a sample


@dataclass(frozen=True)
class Decoded:
    """An image, and what was done to it."""

    pixels: np.ndarray
    """uint8 (H, W, 3)."""
    remarks: tuple[tuple[str, int], ...] = ()
    """What happened, and how often: to the image once, of pages as many as were not read."""


def decode(content: bytes) -> Decoded:
    """Decode one image.

    Raises:
        ValueError: the content is empty or not a whole image.
        OODError: its values have no meaning as pixels.
    """
    if not content:
        raise ValueError("empty file")
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(content)) as image:
            warnings.simplefilter("ignore")  # PIL comments on odd metadata
            remarks = _remarks(image, content)
            return Decoded(np.array(as_rgb(image)), remarks)
    except OODError:
        raise
    except UnidentifiedImageError:  # its text has a place in memory
        raise ValueError("not an image, or of a format that is not read") from None
    except Exception as error:  # PIL's decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        raise ValueError(f"{type(error).__name__}: {error}") from None


def as_rgb(image: Image.Image) -> Image.Image:
    """An opened image in RGB; one that is RGB already is not copied.

    Raises:
        OODError: its values have no meaning as pixels.
    """
    if image.mode == "RGB":
        image.load()
        return image
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):  # those: 0..65535
        return _grey(np.asarray(image).astype(np.int64) >> 8)
    if image.mode in ("I", "F"):
        values = np.asarray(image)
        low, high = values.min(), values.max()
        if image.mode == "F" and low >= 0 and high <= 1:  # not of NaN
            return _grey(np.rint(values * np.float32(255)))
        raise OODError(f"{'float' if image.mode == 'F' else '32-bit whole'} numbers from {low:g} to {high:g} are no "
                       "pixels that have one meaning; expected 8 or 16 bits a channel, or float in 0..1: save the "
                       "images so, with the range that their 0 (black) and 1 (white) stand for")
    return image.convert("RGB")


def _grey(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values.astype(np.uint8)).convert("RGB")


def _remarks(image: Image.Image, content: bytes) -> tuple[tuple[str, int], ...]:
    """What an image is that is no upright 8-bit one of a page; of its header, but where there is alpha or 16 bits."""
    found = []
    if (pages := getattr(image, "n_frames", 1)) > 1:
        found.append(("further pages or frames of a file, not read", pages - 1))
    tags = getattr(image, "tag_v2", {})
    turned = tags.get(_ORIENTATION, 1) if tags else (
        image.getexif().get(_ORIENTATION, 1) if "exif" in image.info else 1)
    if turned not in (0, 1):
        found.append(("images turned as their TIFF orientation says" if tags else
                      "images with an EXIF orientation, which is not applied", 1))
    deep = image.mode.startswith("I") or 16 in tuple(tags.get(_BITS, ())) or (
        image.format == "PNG" and content[24] == 16)  # bits of a sample in PNG's header
    if deep:
        found.append((HIGH_BYTE, 1))
        if image.mode.startswith("I") and np.asarray(image).max() < 4096:
            found.append((DARK, 1))
    if image.mode == "F":
        found.append((TIMES_255, 1))
    if image.mode in ("RGBA", "LA", "PA") and image.getextrema()[-1][0] < 255:
        found.append(("images with transparent pixels, whose alpha is dropped", 1))
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        found.append((f"images in {image.mode}, brought to RGB", 1))
    return tuple(found)
