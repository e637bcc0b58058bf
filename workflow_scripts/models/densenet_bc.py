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
from torch.nn import functional

from workflow_scripts.core.specs import ModelSpec
from workflow_scripts.models.base import Classifier, initialise_fan_out, last, relu

SPEC = ModelSpec()


@dataclass(frozen=True)
class Options:
    depth: Annotated[int, Gt(9)] = 100
    """Layers; 6 n + 4 for n bottlenecks per block."""
    growth: Annotated[int, Gt(0)] = 12
    """Channels that each bottleneck adds."""
    reduction: Annotated[float, Gt(0)] = 0.5
    """Share of the channels that a transition keeps."""


class Squeeze(nn.Module):
    """BN-ReLU-1x1 with fixed statistics, as a clamp and the convolution: a third of the passes over the maps.

    With s and b the batch norm's scale and shift, relu(s x + b) = s max(x, -b / s) + b where s > 0, and
    s min(x, -b / s) + b where s < 0; what stands around the clamp goes into the convolution, which has no padding.
    In bfloat16 the bias makes up for the rounding of weights and -b / s, which for maps far from zero is large.

    Args:
        norm: of C channels.
        convolution: 1x1, from C channels to D, without bias.
        after: another batch norm behind it, of D channels.
    """

    def __init__(self, norm: nn.BatchNorm2d, convolution: nn.Conv2d, after: nn.BatchNorm2d | None = None):
        super().__init__()
        scale, shift = _line(norm)
        least = -shift / scale
        constant = ~torch.isfinite(least.float())  # s = 0, or next to it: relu(b) everywhere
        least, scale = least.masked_fill(constant, 0.0), scale.masked_fill(constant, 0.0)
        shift = torch.where(constant, shift.clamp(min=0), shift)
        up, down = scale > 0, scale < 0
        for name, bound in (("least", least.masked_fill(down, -torch.inf)), ("most", least.masked_fill(up, torch.inf))):
            self.register_buffer(name, bound.float()[:, None, None], persistent=False)
        self.rising = bool(up.all())
        weight = convolution.weight[:, :, 0, 0].double()
        bias, weight = weight @ shift, weight * scale
        if after is not None:
            scale, shift = _line(after)
            bias, weight = bias * scale + shift, weight * scale[:, None]
        self.convolution = nn.Conv2d(convolution.in_channels, convolution.out_channels, 1)
        self.convolution.load_state_dict({"weight": weight[:, :, None, None], "bias": bias})
        made_up = bias + weight @ least - weight.bfloat16().double() @ least.bfloat16().double()
        self.register_buffer("made_up", made_up.float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, D, H, W)."""
        least = self.least.to(x.dtype)
        x = torch.maximum(x, least) if self.rising else torch.clamp(x, least, self.most.to(x.dtype))
        if x.dtype == torch.bfloat16:
            return functional.conv2d(x, self.convolution.weight, self.made_up)
        return self.convolution(x)


def _line(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Scale and shift of a batch norm with its running statistics, float64."""
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    return scale, norm.bias.double() - norm.running_mean.double() * scale


class Bottleneck(nn.Module):
    """BN-ReLU-1x1 to 4 * growth, BN-ReLU-3x3 to growth, concatenated to the input."""

    def __init__(self, channels: int, growth: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, 4 * growth, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, 1, 1, bias=False)
        self.squeeze: Squeeze | None = None

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x, self.new(x)), dim=1)

    def new(self, x: Tensor) -> Tensor:
        """The maps that it adds. (N, C, H, W) -> (N, growth, H, W)."""
        squeezed = self.bn2(self.conv1(relu(self.bn1(x)))) if self.squeeze is None else self.squeeze(x)
        return self.conv2(relu(squeezed))

    def fold_batchnorms(self) -> None:
        """Once, in eval mode, when the weights change no more."""
        self.squeeze = Squeeze(self.bn1, self.conv1, self.bn2)
        del self.bn1, self.conv1, self.bn2


class Block(nn.Module):
    """``count`` bottlenecks, each seeing all maps before it."""

    def __init__(self, channels: int, growth: int, count: int):
        super().__init__()
        self.layer = nn.Sequential(*(Bottleneck(channels + i * growth, growth) for i in range(count)))
        self.channels = channels + count * growth

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or self.layer[0].squeeze is None:
            return self.layer(x)
        # no gradient needs the maps as they were: each bottleneck writes its own beside them, and nothing is copied
        done, before = x.shape[1], x
        x = torch.empty((len(x), self.channels, *x.shape[2:]), dtype=x.dtype, device=x.device,
                        memory_format=torch.channels_last)
        x[:, :done] = before
        for bottleneck in self.layer:
            new = bottleneck.new(x[:, :done])
            x[:, done:done + new.shape[1]] = new
            done += new.shape[1]
        return x


class Transition(nn.Module):
    """BN-ReLU-1x1, then average pooling by 2."""

    def __init__(self, channels: int, channels_out: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, channels_out, 1, bias=False)
        self.pool = nn.AvgPool2d(2)
        self.squeeze: Squeeze | None = None

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.conv1(relu(self.bn1(x))) if self.squeeze is None else self.squeeze(x))

    def fold_batchnorms(self) -> None:
        """Once, in eval mode, when the weights change no more."""
        self.squeeze = Squeeze(self.bn1, self.conv1)
        del self.bn1, self.conv1


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
    def fold_batchnorms(self) -> None:
        """Join what stands before and behind each 1x1 convolution with it; only rounding differs."""
        for module in self.modules():
            if isinstance(module, Bottleneck | Transition) and module.squeeze is None:
                module.fold_batchnorms()

    @property
    def last_batchnorm(self) -> nn.BatchNorm2d:
        """The batch norm whose ReLU gives the penultimate maps."""
        return self.bn1


def build(options: Options, classes: int) -> DenseNet:
    """The network, convolutions initialised by fan-out."""
    return DenseNet(options, classes)
