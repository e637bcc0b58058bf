"""The papers' networks at full size and at a size for tests, and images for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from workflow_scripts.models import bit, densenet_bc, resnet_cifar, wide_resnet, wide_resnet_biased

FULL: dict[str, Callable[[int], nn.Module]] = {
    "densenet100": lambda k: densenet_bc.build(densenet_bc.Options(), k),
    "wrn40-2": lambda k: wide_resnet.build(wide_resnet.Options(), k),
    "wrn40-4": lambda k: wide_resnet_biased.build(wide_resnet_biased.Options(depth=40, widen=4, dropout=0.3), k),
    "resnet18": lambda k: resnet_cifar.build(resnet_cifar.Options(), k),
    "bit-r50x1": lambda k: bit.build(bit.Options(size="R50x1"), k),
}
SMALL: dict[str, Callable[[int], nn.Module]] = {
    "densenet100": lambda k: densenet_bc.build(densenet_bc.Options(depth=10, growth=4), k),
    "wrn40-2": lambda k: wide_resnet.build(wide_resnet.Options(depth=10, widen=1, width=4, dropout=0.0), k),
    "wrn40-4": lambda k: wide_resnet_biased.build(wide_resnet_biased.Options(depth=10, widen=1, dropout=0.0), k),
    "resnet18": lambda k: resnet_cifar.build(resnet_cifar.Options(blocks=(1, 1, 1, 1), width=8), k),
    "bit-r50x1": lambda k: resnet_cifar.build(resnet_cifar.Options(blocks=(1, 1, 1, 1), width=8), k),
}


def settled(network: nn.Module, side: int = 32) -> nn.Module:
    """Batch norms that have seen images, the head away from zero; eval mode, no gradients."""
    nn.init.normal_(network.head.weight, std=0.1)
    with torch.no_grad():
        for _ in range(3):
            network.train()(torch.randn(16, 3, side, side))
    return network.eval().requires_grad_(False)


def pixels(count: int, side: int = 32, seed: int = 0) -> Tensor:
    """Random images with large and small structure. -> (N, H, W, 3) uint8."""
    generator = torch.Generator().manual_seed(seed)
    coarse = nn.functional.interpolate(torch.rand(count, 3, 4, 4, generator=generator), (side, side), mode="bilinear")
    fine = torch.rand(count, 3, side, side, generator=generator)
    return (255 * (0.7 * coarse + 0.3 * fine)).byte().permute(0, 2, 3, 1).contiguous()


def normalised(images: Tensor, memory: Any = torch.contiguous_format) -> Tensor:
    """(N, H, W, 3) uint8 -> (N, 3, H, W) float32 in about -2..2."""
    return ((images.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25).contiguous(memory_format=memory)
