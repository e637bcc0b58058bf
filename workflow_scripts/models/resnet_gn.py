"""A small relative of BiT for 32x32: pre-activation basic blocks, GroupNorm, weight-standardised convolutions.

A 3x3 stem without max-pooling and stages of stride 1, 2, 2, ...; the maps are the last GroupNorm and ReLU.
The head starts at zero, as BiT's does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Gt, MinLen
from torch import Tensor, nn
from torch.nn import functional

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.specs import ModelSpec
from workflow_scripts.models.base import Classifier, last, relu

EPS = 1e-10  # of weight standardisation, as in BiT


SPEC = ModelSpec()


@dataclass(frozen=True)
class Options:
    blocks: Annotated[tuple[Annotated[int, Gt(0)], ...], MinLen(1)] = (1, 1, 1)
    """Basic blocks in each stage; each stage but the first halves height and width."""
    width: Annotated[int, Gt(0)] = 16
    """Channels of the first stage; they double with each stage."""
    groups: Annotated[int, Gt(0)] = 4
    """Groups of every GroupNorm."""
    stem_stride: Literal[1, 2] = 1
    """Stride of the stem; with 2 the first stage works at half the image's size."""


def standardised(weight: Tensor, eps: float) -> Tensor:
    """Each output channel's weights to mean 0 and variance 1 (population variance plus ``eps``). (O, I, h, w)."""
    variance, mean = torch.var_mean(weight, dim=(1, 2, 3), keepdim=True, correction=0)
    return (weight - mean) * torch.rsqrt(variance + eps)


class StandardisedConvolution(nn.Conv2d):
    """A convolution without bias whose weights are standardised at each use."""

    def __init__(self, channels_in: int, channels: int, size: int, stride: int = 1):
        super().__init__(channels_in, channels, size, stride, size // 2, bias=False)
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, standardised(self.weight, EPS), None, self.stride, self.padding)


def frozen_convolution(module: nn.Conv2d, eps: float) -> nn.Conv2d:
    """The same convolution with its weights standardised once, for networks that are trained no more."""
    plain = nn.Conv2d(module.in_channels, module.out_channels, module.kernel_size, module.stride, module.padding,
                      bias=False, device=module.weight.device, dtype=module.weight.dtype)
    with torch.no_grad():
        plain.weight.copy_(standardised(module.weight, eps))
    return plain.requires_grad_(False)


class Block(nn.Module):
    """GN-ReLU-3x3-GN-ReLU-3x3 plus the input or, where shapes differ, a 1x1 of the activated input."""

    def __init__(self, channels_in: int, channels: int, stride: int, groups: int):
        super().__init__()
        self.gn1 = nn.GroupNorm(groups, channels_in)
        self.conv1 = StandardisedConvolution(channels_in, channels, 3, stride)
        self.gn2 = nn.GroupNorm(groups, channels)
        self.conv2 = StandardisedConvolution(channels, channels, 3)
        self.shortcut = None
        if channels_in != channels or stride != 1:
            self.shortcut = StandardisedConvolution(channels_in, channels, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        active = relu(self.gn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(active)
        return self.conv2(relu(self.gn2(self.conv1(active)))) + shortcut


class ResNetGN(Classifier):
    """See the module's docstring. ``classes`` is K."""

    def __init__(self, options: Options, classes: int):
        super().__init__()
        if options.width % options.groups:
            raise OODError(f"resnet_gn: width {options.width} must be a multiple of groups {options.groups}")
        channels = options.width
        self.conv1 = StandardisedConvolution(3, channels, 3, options.stem_stride)
        layers = []
        for stage, count in enumerate(options.blocks):
            width = options.width * 2**stage
            layers.append(nn.Sequential(*(
                Block(width if block else channels, width, 2 if stage and not block else 1, options.groups)
                for block in range(count))))
            channels = width
        self.layers = nn.ModuleList(layers)
        self.gn = nn.GroupNorm(options.groups, channels)
        self.fc = nn.Linear(channels, classes)
        nn.init.zeros_(self.fc.weight)
        nn.init.zeros_(self.fc.bias)

    def maps(self, x: Tensor) -> Tensor:
        return last(self.stages(x))

    def stages(self, x: Tensor) -> Iterator[Tensor]:
        """The stem and the stages, the last one after GroupNorm and ReLU."""
        x = self.conv1(x)
        yield x
        for number, layer in enumerate(self.layers, 1):
            x = layer(x)
            yield relu(self.gn(x)) if number == len(self.layers) else x

    def fold_batchnorms(self) -> None:
        for name, module in list(self.named_modules()):
            if isinstance(module, StandardisedConvolution):
                self.set_submodule(name, frozen_convolution(module, EPS))


def build(options: Options, classes: int) -> ResNetGN:
    """The network with BiT's initialisation: convolutions N(0, 2 / fan out), a head of zeros."""
    return ResNetGN(options, classes)
