"""torchvision's ImageNet networks: ResNet-101, -50, -34, -18 and MobileNetV2, as their papers define them.

Tensor names are torchvision's, so its released files load strictly; the OOD papers use the first ("V1") weights,
``resnet50-19c8e357.pth``, ``resnet18-5c106cde.pth`` and ``mobilenet_v2-b0353104.pth``. Penultimate features have 2048,
512 and 1280 values. MobileNetV2's maps end in ReLU6. With ``project`` a linear layer and a ReLU stand between pooling
and head, as in NPOS's ResNet-101 (2048 -> 512); its output is the penultimate feature.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Gt
from torch import Tensor, nn
from torchvision.models import mobilenetv2, resnet

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.specs import ModelSpec
from workflow_scripts.models.base import Classifier, last

RESNETS = {
    "resnet101": (resnet.Bottleneck, [3, 4, 23, 3]), "resnet50": (resnet.Bottleneck, [3, 4, 6, 3]),
    "resnet34": (resnet.BasicBlock, [3, 4, 6, 3]), "resnet18": (resnet.BasicBlock, [2, 2, 2, 2]),
}


SPEC = ModelSpec(draws=("architecture=mobilenet_v2",))  # by its dropout


@dataclass(frozen=True)
class Options:
    architecture: Literal["resnet101", "resnet50", "resnet34", "resnet18", "mobilenet_v2"] = "resnet50"
    """Name in torchvision."""
    project: Annotated[int, Gt(0)] | None = None
    """Size of the penultimate features behind a further linear layer and ReLU (ResNets); none: those pooled."""


class ResNet(Classifier, resnet.ResNet):
    """torchvision's ResNet; its own ``forward`` is hidden by :class:`Classifier`'s, which computes the same."""

    BEHIND: ClassVar = {"bn1": "conv1", "bn2": "conv2", "bn3": "conv3", "1": "0"}  # the last is that of a shortcut

    def maps(self, x: Tensor) -> Tensor:
        return last(self.stages(x))

    def stages(self, x: Tensor) -> Iterator[Tensor]:
        """The stem before its max-pooling, and the four stages."""
        x = self.relu(self.bn1(self.conv1(x)))
        yield x
        x = self.maxpool(x)
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            yield x

    @property
    def last_batchnorm(self) -> nn.BatchNorm2d:
        """The last block's last batch norm, as BATS uses it (the shortcut is added behind it)."""
        return self.layer4[-1].bn3 if isinstance(self.layer4[-1], resnet.Bottleneck) else self.layer4[-1].bn2


class Projected(ResNet):
    """A ResNet whose pooled maps pass a linear layer and a ReLU before the head."""

    def __init__(self, block: type[nn.Module], blocks: list[int], num_classes: int, width: int):
        super().__init__(block, blocks, num_classes)
        self.proj = nn.Sequential(nn.Linear(self.fc.in_features, width), nn.ReLU())
        self.fc = nn.Linear(width, num_classes)

    def features(self, x: Tensor) -> Tensor:
        return self.proj(super().features(x))

    @property
    def last_batchnorm(self) -> None:
        """None: the penultimate features are behind the projection."""
        return None


class MobileNetV2(Classifier, mobilenetv2.MobileNetV2):
    """torchvision's MobileNetV2, width 1."""

    BEHIND: ClassVar = {"1": "0", "2": "1", "3": "2"}  # places in nn.Sequential
    _STAGE_ENDS = (1, 3, 6, 13, 18)  # the last block of each resolution; 18 is the 1x1 convolution to 1280 channels

    @property
    def _blocks(self) -> nn.Sequential:
        """The convolutional part, named ``features`` in checkpoints: a name that the method of the contract hides."""
        return self._modules["features"]

    def maps(self, x: Tensor) -> Tensor:
        return self._blocks(x)

    def stages(self, x: Tensor) -> Iterator[Tensor]:
        """The last block of each resolution, and the maps."""
        for number, block in enumerate(self._blocks):
            x = block(x)
            if number in self._STAGE_ENDS:
                yield x

    def forward(self, x: Tensor) -> Tensor:
        """Logits, with dropout 0.2 in train mode."""
        return self.classifier(self.features(x))

    @property
    def head(self) -> nn.Linear:
        return self.classifier[1]

    @property
    def last_batchnorm(self) -> nn.BatchNorm2d:
        """The batch norm in front of the last ReLU6."""
        return self._blocks[-1][1]


def build(options: Options, classes: int) -> Classifier:
    """The network with torchvision's initialisation.

    Raises:
        OODError: a projection for MobileNetV2.
    """
    if options.architecture == "mobilenet_v2":
        if options.project:
            raise OODError("torchvision_imagenet: project is for ResNets; leave it out with mobilenet_v2")
        return MobileNetV2(num_classes=classes)
    block, blocks = RESNETS[options.architecture]
    if options.project:
        return Projected(block, blocks, classes, options.project)
    return ResNet(block, blocks, num_classes=classes)
