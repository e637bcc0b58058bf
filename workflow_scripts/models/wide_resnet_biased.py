"""The Wide ResNet of background data resampling (CVPR 2020), which differs from the usual one in four points.

All convolutions have biases; the *second* 3x3 of a block carries the stride; the 1x1 shortcut takes the raw input of
the block, not its activation; the last batch norm has momentum 0.9, so that its running statistics are nearly those of
the last batch. Initialised as torch does by default. WRN-40-4 (``wrn40``): 8,955,050 parameters for 10 classes;
WRN-28-10 (``wrn28``): 36,489,290. Tensor names are those of the release's checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.specs import ModelSpec
from workflow_scripts.models.base import Classifier, last, relu

SPEC = ModelSpec(draws=("dropout",))


@dataclass(frozen=True)
class Options:
    depth: Annotated[int, Gt(9)] = 40
    """Layers; 6 n + 4 for n blocks in each of the three stages."""
    widen: Annotated[int, Gt(0)] = 4
    """Factor of the stages' channels over the stem's."""
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.3
    """Share of values dropped between the two convolutions of a block, in train mode."""
    width: Annotated[int, Gt(0)] = 16
    """Channels of the stem; the stages have width * widen times 1, 2 and 4."""


class BiasedBlock(nn.Module):
    """BN-ReLU-3x3-dropout-BN-ReLU-3x3 (with the stride) plus the input or, where shapes differ, a 1x1 of the input."""

    def __init__(self, channels_in: int, channels: int, stride: int, dropout: float):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, 1, 1)
        self.dropout = nn.Dropout(dropout)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1)
        self.shortcut = nn.Sequential()
        if channels_in != channels or stride != 1:
            self.shortcut = nn.Sequential(nn.Conv2d(channels_in, channels, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        out = self.dropout(self.conv1(relu(self.bn1(x))))
        return self.conv2(relu(self.bn2(out))) + self.shortcut(x)


class WideResNetBiased(Classifier):
    """See the module's docstring. ``classes`` is K."""

    BEHIND: ClassVar = {"bn2": "conv1"}

    def __init__(self, options: Options, classes: int):
        super().__init__()
        count, rest = divmod(options.depth - 4, 6)
        if rest:
            raise OODError(f"wide_resnet_biased: depth is {options.depth}, but must be 6 n + 4 (10, 16, 22, 28, ...)")
        channels = options.width
        self.conv1 = nn.Conv2d(3, channels, 3, 1, 1)
        for number in (1, 2, 3):
            wider = options.width * options.widen * 2 ** (number - 1)
            setattr(self, f"layer{number}", nn.Sequential(*(
                BiasedBlock(wider if block else channels, wider, 1 if block or number == 1 else 2, options.dropout)
                for block in range(count))))
            channels = wider
        self.bn1 = nn.BatchNorm2d(channels, momentum=0.9)
        self.linear = nn.Linear(channels, classes)

    def maps(self, x: Tensor) -> Tensor:
        return last(self.stages(x))

    def stages(self, x: Tensor) -> Iterator[Tensor]:
        """The first convolution, the first two stages and the last one after batch norm and ReLU."""
        for layer in (self.conv1, self.layer1, self.layer2):
            x = layer(x)
            yield x
        yield relu(self.bn1(self.layer3(x)))

    @property
    def head(self) -> nn.Linear:
        return self.linear

    @property
    def last_batchnorm(self) -> nn.BatchNorm2d:
        """The batch norm whose ReLU gives the penultimate maps."""
        return self.bn1


def build(options: Options, classes: int) -> WideResNetBiased:
    """The network with torch's default initialisation."""
    return WideResNetBiased(options, classes)
