"""What is done to images on their way to a network, as stages read it; done by
:mod:`workflow_scripts.data.images.augment`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Tag

from workflow_scripts.core.section import Section


class MeanStd(Section):
    """Fixed normalisation per channel, on pixel values in 0..1."""

    mean: tuple[float, float, float]
    """Subtracted, per RGB channel."""
    std: tuple[float, float, float]
    """Divided by, per RGB channel."""


Normalise = MeanStd | Literal["per_image"]
"""Pixel values to network inputs: a fixed mean and std, or each image to zero mean and unit standard deviation."""


class CropWindow(Section):
    """A random window that is smaller than the image, or of another size."""

    size: int
    """Side of the window in pixels."""
    padding: int = 0
    """Zero padding on each side before, in pixels."""


class RandomCrop(Section):
    """Zero padding on each side, then a random window."""

    random_crop: int | CropWindow
    """Padding in pixels for a window of the original size, or size and padding."""


class HorizontalFlip(Section):
    """Mirror left-right."""

    horizontal_flip: float
    """Probability."""


class Jitter(Section):
    """How much colours change."""

    brightness: float = 0.0
    """Factor in max(0, 1 - x)..1 + x; 0: unchanged."""
    contrast: float = 0.0
    """As brightness."""
    saturation: float = 0.0
    """As brightness."""
    hue: float = 0.0
    """Turn in -x..x of the full circle."""
    p: float = 1.0
    """Probability that an image is changed at all."""


class ColorJitter(Section):
    """Brightness, contrast, saturation and hue by random factors, in random order."""

    color_jitter: Jitter
    """How much, and how often."""


class Grayscale(Section):
    """Grey, in three equal channels."""

    grayscale: float
    """Probability."""


class ResizedWindow(Section):
    """A random window and the size it is brought to."""

    size: int
    """Side of the result in pixels."""
    scale: tuple[float, float] = (0.08, 1.0)
    """Smallest and largest share of the image's area."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Smallest and largest width / height."""


class RandomResizedCrop(Section):
    """A random window, resized (bilinear)."""

    random_resized_crop: ResizedWindow
    """Size, share of the area, shape."""


_KINDS = {name: kind.__name__ for kind in (RandomCrop, HorizontalFlip, ColorJitter, Grayscale, RandomResizedCrop)
          for name in kind.model_fields}


def _kind(step: Any) -> str | None:
    names = step if isinstance(step, dict) else getattr(type(step), "model_fields", ())
    return next((_KINDS[name] for name in names if name in _KINDS), None)


Step = Annotated[
    Annotated[RandomCrop, Tag("RandomCrop")] | Annotated[HorizontalFlip, Tag("HorizontalFlip")]
    | Annotated[ColorJitter, Tag("ColorJitter")] | Annotated[Grayscale, Tag("Grayscale")]
    | Annotated[RandomResizedCrop, Tag("RandomResizedCrop")],
    Discriminator(_kind, custom_error_type="step",
                  custom_error_message="one of '" + "', '".join(_KINDS) + "' expected")]
"""A random change to images: a section with one key, its name."""
