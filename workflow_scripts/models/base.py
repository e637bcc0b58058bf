"""What every network offers to the stages.

``maps(x)``: (N, 3, H, W) normalised input -> (N, D, h, w), the last feature maps after their ReLU.
``stages(x)``: yields the output of each stage, computed one after the other; the last one is the maps.
``features(x)``: -> (N, D) penultimate features, the spatial mean of the maps.
``head``: the last linear layer, a property that names whatever attribute the architecture's checkpoints call it.
``last_batchnorm``: the batch norm whose ReLU gives the maps, or ``None``.
``forward(x)``: -> (N, K) logits, ``head(features(x))``.
``dense(x)``: -> (N, K, h, w), the head at every place of the maps; its spatial mean is ``forward(x)``.
``fold_batchnorms()``: called in eval mode when the weights change no more.

An architecture is one module in this folder with ``SPEC``, a :class:`~workflow_scripts.core.specs.ModelSpec`, a frozen
dataclass ``Options`` and ``build(options, classes)``; where a foreign file holds more than the network,
``take_in(options, state, names, path)`` gives the network's tensors of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval


class Classifier(nn.Module):
    """A convolutional classifier with a linear head on globally averaged feature maps."""

    fc: nn.Linear
    background: nn.Linear
    """Penultimate features to the one logit of the background; only of networks that were trained with one."""
    BEHIND: ClassVar[Mapping[str, str]] = {}
    """Name of a batch norm -> name of the convolution beside it whose output, and nothing else, it always takes."""

    def maps(self, x: Tensor) -> Tensor:
        """Last feature maps after their ReLU. (N, 3, H, W) -> (N, D, h, w)."""
        raise NotImplementedError

    def stages(self, x: Tensor) -> Iterator[Tensor]:
        """Outputs of the network's stages, first to last, for scores that read several layers.

        (N, 3, H, W) -> (N, D_l, h_l, w_l) each. Whoever stops early saves the stages behind. A network that does not
        tell its stages apart has one, its maps.
        """
        yield self.maps(x)

    def features(self, x: Tensor) -> Tensor:
        """Penultimate features. (N, 3, H, W) -> (N, D)."""
        return self.maps(x).mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Logits. (N, 3, H, W) -> (N, K)."""
        return self.head(self.features(x))

    def dense(self, x: Tensor) -> Tensor:
        """Logits at every place of the maps: the head as a 1x1 convolution (dfb 2b). (N, 3, H, W) -> (N, K, h, w).

        A linear head commutes with averaging, so the spatial mean is :meth:`forward`.
        """
        return functional.conv2d(self.maps(x), self.head.weight[:, :, None, None], self.head.bias)

    def fold_batchnorms(self) -> None:
        """Compute once what depends on the weights alone: batch norms of :attr:`BEHIND` join their convolutions.

        For a network in eval mode; only rounding differs. :attr:`last_batchnorm`, whose numbers a score reads, stays.
        """
        for module in list(self.modules()):
            children = dict(module.named_children())
            for norm, convolution in self.BEHIND.items():
                pair = children.get(convolution), children.get(norm)
                if isinstance(pair[0], nn.Conv2d) and isinstance(pair[1], nn.BatchNorm2d) and (
                        pair[1] is not self.last_batchnorm):
                    module.add_module(convolution, fuse_conv_bn_eval(*pair))
                    module.add_module(norm, nn.Identity())

    @property
    def head(self) -> nn.Linear:
        """The last linear layer: weight (K, D), bias (K,)."""
        return self.fc

    @property
    def last_batchnorm(self) -> nn.BatchNorm2d | None:
        """The batch norm in front of the last ReLU, where the maps are exactly its rectified output; else ``None``."""
        return None


class WithFrozenBlocks(Classifier):
    """A classifier whose first blocks are never trained, so that their output can be computed once and kept."""

    token_shape: tuple[int, int]
    """Tokens of an image, and their width."""

    def frozen_blocks(self, x: Tensor) -> Tensor:
        """What the other blocks take in place of the images. (N, 3, H, W) -> (N, tokens, width)."""
        raise NotImplementedError


def upsampled(logits: Tensor, height: int, width: int) -> Tensor:
    """Dense logits at every pixel, bilinear with aligned corners (dfb 2b). (N, K, h, w) -> (N, K, height, width)."""
    return functional.interpolate(logits, (height, width), mode="bilinear", align_corners=True)


def initialise_fan_out(network: nn.Module) -> None:
    """Convolutions N(0, sqrt(2 / (kernel area * out channels))), batch norm 1 and 0, linear bias 0 (He et al. 2015)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            area = module.kernel_size[0] * module.kernel_size[1]
            nn.init.normal_(module.weight, 0.0, (2 / (area * module.out_channels)) ** 0.5)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)


def initialise_convolutions(network: nn.Module, how: Literal["fan_out"] | float) -> None:
    """Normal weights of all convolutions, of standard deviation ``how`` or sqrt(2 / (kernel area * out channels))."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            if how == "fan_out":
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            else:
                nn.init.normal_(module.weight, 0.0, how)


@contextmanager
def eval_mode(network: nn.Module) -> Iterator[None]:
    """Eval mode (running statistics, no dropout) without gradients; each part's mode is put back afterwards."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def last(outputs: Iterator[Tensor]) -> Tensor:
    """The last of ``outputs``; none but the newest is kept alive."""
    return deque(outputs, maxlen=1).pop()


def relu(x: Tensor) -> Tensor:
    """Rectify in place: the input is never needed again in these networks."""
    return torch.relu_(x)
