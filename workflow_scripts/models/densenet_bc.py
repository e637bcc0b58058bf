"""DenseNet-BC for 32x32 images (Huang et al. 2017): bottlenecks and compressing transitions, three dense blocks.

DenseNet-BC-100-12 ("DenseNet-101" in OOD papers) is ``depth: 100, growth: 12``: 24 -> 216 -> 108 -> 300 -> 150 -> 342
channels, 800,032 parameters for 100 classes. Tensor names are those of the checkpoints that OOD papers release.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor, nn

from workflow_scripts.models.base import Classifier, initialise_fan_out, last, relu


@dataclass(frozen=True)
class Options:
    depth: Annotated[int, Gt(9)] = 100
    """Layers; 6 n + 4 for n bottlenecks per block."""
    growth: Annotated[int, Gt(0)] = 12
    """Channels that each bottleneck adds."""
    reduction: Annotated[float, Gt(0)] = 0.5
    """Share of the channels that a transition keeps."""


class Bottleneck(nn.Module):
    """BN-ReLU-1x1 to 4 * growth, BN-ReLU-3x3 to growth, concatenated to the input."""

    def __init__(self, channels: int, growth: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, 4 * growth, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        new = self.conv2(relu(self.bn2(self.conv1(relu(self.bn1(x))))))
        return torch.cat((x, new), dim=1)


    def freeze(self) -> None:
        """Join the second batch norm, in eval mode, with the convolution before it; only rounding differs."""
        norm = self.bn2
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        joined = nn.Conv2d(self.conv1.in_channels, self.conv1.out_channels, 1)
        joined.load_state_dict({"weight": self.conv1.weight * scale[:, None, None, None],
                                "bias": norm.bias - norm.running_mean * scale})
        self.conv1, self.bn2 = joined, nn.Identity()


class Block(nn.Module):
    """``count`` bottlenecks, each seeing all maps before it."""

    def __init__(self, channels: int, growth: int, count: int):
        super().__init__()
        self.layer = nn.Sequential(*(Bottleneck(channels + i * growth, growth) for i in range(count)))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Transition(nn.Module):
    """BN-ReLU-1x1, then average pooling by 2."""

    def __init__(self, channels: int, channels_out: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, channels_out, 1, bias=False)
        self.pool = nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.conv1(relu(self.bn1(x))))


class DenseNet(Classifier):
    """See the module's docstring. ``classes`` is K."""

    def __init__(self, options: Options, classes: int):
        super().__init__()
        count = (options.depth - 4) // 6
        channels = 2 * options.growth
        self.conv1 = nn.Conv2d(3, channels, 3, 1, 1, bias=False)
        for number in (1, 2, 3):
            setattr(self, f"block{number}", Block(channels, options.growth, count))
            channels += count * options.growth
            if number < 3:
                kept = int(channels * options.reduction)
                setattr(self, f"trans{number}", Transition(channels, kept))
                channels = kept
        self.bn1 = nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels, classes)
        initialise_fan_out(self)

    def maps(self, x: Tensor) -> Tensor:
        return last(self.stages(x))

    def stages(self, x: Tensor) -> Iterator[Tensor]:
        """The first convolution, the two transitions and the last block after batch norm and ReLU."""
        x = self.conv1(x)
        yield x
        x = self.trans1(self.block1(x))
        yield x
        x = self.trans2(self.block2(x))
        yield x
        yield relu(self.bn1(self.block3(x)))

    @torch.no_grad()
    def freeze(self) -> None:
        """Join each bottleneck's second batch norm with the convolution before it."""
        for module in self.modules():
            if isinstance(module, Bottleneck) and isinstance(module.bn2, nn.BatchNorm2d):
                module.freeze()

    @property
    def last_batchnorm(self) -> nn.BatchNorm2d:
        """The batch norm whose ReLU gives the penultimate maps."""
        return self.bn1


def build(options: Options, classes: int) -> DenseNet:
    """The network, convolutions initialised by fan-out."""
    return DenseNet(options, classes)
