"""Wide ResNet for 32x32 images (Zagoruyko & Komodakis, BMVC 2016) in the form that outlier exposure made standard.

Pre-activation blocks of two 3x3 convolutions without bias; the first carries the stride. WRN-40-2 with dropout 0.3 is
``depth: 40, widen: 2``: 2,243,546 parameters for 10 classes, 2,255,156 for 100. Less depth and width give a small
relative. Tensor names are those of the checkpoints that outlier exposure and G-OE release.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.specs import ModelSpec
from workflow_scripts.models.base import Classifier, initialise_fan_out, last, relu

SPEC = ModelSpec(draws=("dropout",))


@dataclass(frozen=True)
class Options:
    depth: Annotated[int, Gt(9)] = 40
    """Layers; 6 n + 4 for n blocks in each of the three stages."""
    widen: Annotated[int, Gt(0)] = 2
    """Factor of the stages' channels over the stem's."""
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.3
    """Share of values dropped between the two convolutions of a block, in train mode."""
    width: Annotated[int, Gt(0)] = 16
    """Channels of the stem; the stages have width * widen times 1, 2 and 4."""


class PreactivationBlock(nn.Module):
    """BN-ReLU-3x3-BN-ReLU-dropout-3x3 plus the input; where shapes differ, a 1x1 of the *pre-activated* input."""

    def __init__(self, channels_in: int, channels: int, stride: int, dropout: float):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.convShortcut = None
        if channels_in != channels or stride != 1:
            self.convShortcut = nn.Conv2d(channels_in, channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = relu(self.bn1(x))
        shortcut = x if self.convShortcut is None else self.convShortcut(active)
        return shortcut + self.conv2(self.dropout(relu(self.bn2(self.conv1(active)))))


class Stage(nn.Module):
    """``count`` blocks, the first of which changes channels and resolution."""

    def __init__(self, channels_in: int, channels: int, count: int, stride: int, dropout: float):
        super().__init__()
        self.layer = nn.Sequential(*(
            PreactivationBlock(channels if block else channels_in, channels, 1 if block else stride, dropout)
            for block in range(count)))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class WideResNet(Classifier):
    """See the module's docstring. ``classes`` is K."""

    BEHIND: ClassVar = {"bn2": "conv1"}

    def __init__(self, options: Options, classes: int):
        super().__init__()
        count, rest = divmod(options.depth - 4, 6)
        if rest:
            raise OODError(f"wide_resnet: depth is {options.depth}, but must be 6 n + 4 (10, 16, 22, 28, 34, 40, ...)")
        channels = options.width
        self.conv1 = nn.Conv2d(3, channels, 3, 1, 1, bias=False)
        for number in (1, 2, 3):
            wider = options.width * options.widen * 2 ** (number - 1)
            setattr(self, f"block{number}", Stage(channels, wider, count, 1 if number == 1 else 2, options.dropout))
            channels = wider
        self.bn1 = nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels, classes)
        initialise_fan_out(self)

    def maps(self, x: Tensor) -> Tensor:
        return last(self.stages(x))

    def stages(self, x: Tensor) -> Iterator[Tensor]:
        """The first convolution, the first two stages and the last one after batch norm and ReLU."""
        for layer in (self.conv1, self.block1, self.block2):
            x = layer(x)
            yield x
        yield relu(self.bn1(self.block3(x)))

    @property
    def last_batchnorm(self) -> nn.BatchNorm2d:
        """The batch norm whose ReLU gives the penultimate maps."""
        return self.bn1


def build(options: Options, classes: int) -> WideResNet:
    """The network, convolutions initialised by fan-out."""
    return WideResNet(options, classes)
