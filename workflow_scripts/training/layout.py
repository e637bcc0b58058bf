"""How a network in training lies in memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn

PLAIN = torch.contiguous_format


def channels_last(network: nn.Module) -> nn.Module:
    """The network, laid out channels last, the fastest order, where that is safe.

    In the backward pass of a strided 1x1 convolution of fewer than 8 channels that lie last, torch 2.15.0 (oneDNN
    3.13.3) writes past its memory on a CPU with one thread: the process crashes, or goes on with wrong numbers. Such a
    convolution reads its images channel by channel.
    """
    network.to(memory_format=torch.channels_last)
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.in_channels < 8 and module.kernel_size == (1, 1) \
                and max(module.stride) > 1:
            # a copy: to torch the weight and images of one channel are in either order
            module.weight.data = module.weight.data.clone(memory_format=PLAIN)
            module.register_forward_pre_hook(_plain)
    return network


def _plain(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    x, = inputs
    return (x.clone(memory_format=PLAIN) if x.device.type == "cpu" else x,)
