"""What is done to images on their way to a network, as it is written in a configuration and read by stages; done by
``workflow_scripts.data.images.augment``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from workflow_scripts.core.section import Fraction, PositiveFraction, Strict


class MeanStd(Strict):
    """Fixed normalisation per channel, on pixel values in 0..1."""

    mean: tuple[float, float, float]
    """Subtracted, per RGB channel."""
    std: tuple[float, float, float]
    """Divided by, per RGB channel."""


Normalise = Literal["per_image"] | MeanStd
"""Pixel values to network inputs: a fixed mean and std, or each image to zero mean and unit standard deviation."""


class CropWindow(Strict):
    """A random window that is smaller than the image, or of another size."""

    size: Annotated[int, Field(gt=0)]
    """Side of the window in pixels."""
    padding: Annotated[int, Field(ge=0)] = 0
    """Zero padding on each side before, in pixels."""


class RandomCrop(Strict):
    """Zero padding on each side, then a random window of the original size; of an image whose long side was kept
    (geometry `shortN`) a window of N x N. `{size: 128}` takes windows of another size."""

    random_crop: Annotated[int, Field(gt=0)] | CropWindow
    """Padding in pixels, or size and padding."""


class HorizontalFlip(Strict):
    """Mirror left-right."""

    horizontal_flip: Fraction
    """Probability."""


class Jitter(Strict):
    """How much colours change."""

    brightness: Annotated[float, Field(ge=0)] = 0.0
    """Factor in max(0, 1 - x)..1 + x; 0: unchanged."""
    contrast: Annotated[float, Field(ge=0)] = 0.0
    """As brightness."""
    saturation: Annotated[float, Field(ge=0)] = 0.0
    """As brightness."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Turn in -x..x of the full circle."""
    p: Fraction = 1.0
    """Probability that an image is changed at all."""


class ColorJitter(Strict):
    """Brightness, contrast, saturation and hue by random factors, in random order."""

    color_jitter: Jitter
    """How much, and how often."""


class Grayscale(Strict):
    """Grey, in three equal channels."""

    grayscale: Fraction
    """Probability."""


class ResizedWindow(Strict):
    """A random window and the size it is brought to."""

    size: Annotated[int, Field(gt=0)]
    """Side of the result in pixels."""
    scale: tuple[PositiveFraction, PositiveFraction] = (0.08, 1.0)
    """Smallest and largest share of the image's area."""
    ratio: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (3 / 4, 4 / 3)
    """Smallest and largest width / height."""

    @model_validator(mode="after")
    def _ordered(self) -> ResizedWindow:
        if self.scale[0] > self.scale[1] or self.ratio[0] > self.ratio[1]:
            raise ValueError("scale and ratio are [smallest, largest]")
        return self


class RandomResizedCrop(Strict):
    """A random window, resized (bilinear). Of a dataset with `pixels: decoded` it is cut out of the whole image, as the
    first step; otherwise out of the stored or `resident` one, with its long side where that was kept (`shortN`)."""

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
    Discriminator(_kind, custom_error_type="augmentation",
                  custom_error_message=f"one of {', '.join(_KINDS)} expected")]
"""A random change to images: one key, its name."""
