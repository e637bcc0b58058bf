"""What stands for OOD where options are chosen without any OOD image, as two stages read it."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt

from workflow_scripts.core.section import Section


class PseudoOOD(Section):
    """Pseudo-OOD copies of ID images."""

    pseudo_ood: Literal["noise", "jigsaw"] = "noise"
    """What stands for OOD: Gaussian noise added to the network input, or its 3x3 cells in random order."""
    std: Annotated[float, Gt(0)] = 0.3
    """Standard deviation of the noise; 0.3 for CIFAR, 0.5 for ImageNet."""
    seed: Annotated[int, Ge(0)] = 0
    """Of the noise or the jigsaw, and of what is drawn."""
