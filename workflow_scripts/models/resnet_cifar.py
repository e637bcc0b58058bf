"""ResNet for 32x32 images (He et al. 2016, section 4.2, in the four-stage form that OOD papers use).

A 3x3 stem of stride 1 without max-pooling, four stages of post-activation basic blocks, global average pooling.
ResNet-18 is ``blocks: [2, 2, 2, 2]``, ResNet-34 ``[3, 4, 6, 3]``, both of width 64; fewer blocks and channels give the
small relative of the default run. Tensor names are torchvision's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Gt, Len
from torch import Tensor, nn

from workflow_scripts.core.specs import ModelSpec
from workflow_scripts.models.base import Classifier, last, relu

SPEC = ModelSpec()


@dataclass(frozen=True)
class Options:
    blocks: Annotated[tuple[int, ...], Len(4, 4)] = (2, 2, 2, 2)
    """Basic blocks in each of the four stages."""
    width: Annotated[int, Gt(0)] = 64
    """Channels of the first stage; they double with each stage."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm and a shortcut, ReLU after the sum."""

    def __init__(self, channels_in: int, channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = None
        if stride != 1 or channels_in != channels:
            self.downsample = nn.Sequential(nn.Conv2d(channels_in, channels, 1, stride, bias=False),
                                            nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.bn2(self.conv2(relu(self.bn1(self.conv1(x)))))
        return relu(x + shortcut)


class ResNet(Classifier):
    """See the module's docstring. ``classes`` is K."""

    BEHIND: ClassVar = {"bn1": "conv1", "bn2": "conv2", "1": "0"}  # the last pair is that of a shortcut

    def __init__(self, options: Options, classes: int):
        super().__init__()
        widths = [options.width * 2**stage for stage in range(4)]
        self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        channels = widths[0]
        for stage, (blocks, width) in enumerate(zip(options.blocks, widths, strict=True)):
            layers = []
            for block in range(blocks):
                layers.append(BasicBlock(channels, width, 2 if block == 0 and stage > 0 else 1))
                channels = width
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layers))
        self.fc = nn.Linear(channels, classes)

    def maps(self, x: Tensor) -> Tensor:
        return last(self.stages(x))

    def stages(self, x: Tensor) -> Iterator[Tensor]:
        """The stem and the four stages."""
        x = relu(self.bn1(self.conv1(x)))
        yield x
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            yield x

    @property
    def last_batchnorm(self) -> nn.BatchNorm2d:
        """The last block's second batch norm, as BATS uses it (the shortcut is added behind it)."""
        return self.layer4[-1].bn2


def build(options: Options, classes: int) -> ResNet:
    """The network with PyTorch's default initialisation."""
    return ResNet(options, classes)
