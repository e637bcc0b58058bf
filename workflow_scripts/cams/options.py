"""How the activation of a classifier becomes pseudo-masks, as stages read it."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval, MinLen

from workflow_scripts.core.section import Section


class MaskOptions(Section):
    """From activation to pseudo-mask."""

    by: Literal["true", "predicted"] = "true"
    """Class whose activation is taken: the image's own, or (as released) the one predicted."""
    scales: Annotated[tuple[Annotated[float, Gt(0)], ...], MinLen(1)] = (1.0, 0.5, 1.5, 2.0)
    """Sizes at which the image is passed through the network."""
    flip: bool = True
    """Add the mirror image's activation, turned back."""
    sigma: Annotated[float, Ge(0)] = 4.0
    """Standard deviation of the Gaussian filter in pixels; 0: none."""
    threshold: Annotated[float, Interval(gt=0, lt=1)] = 0.5
    """Share of the filtered map's range above which a pixel is foreground."""
    batch_size: Annotated[int, Gt(0)] = 64
    """Images per pass."""
