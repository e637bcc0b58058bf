"""The small network for grey 28x28 images of Outlier Exposure's release (Hendrycks et al., ICLR 2019, appendix).

conv 5x5 (10) - pool - GELU - conv 5x5 (20) - dropout of maps - pool - GELU - linear 320 to 50 - GELU - linear 50 to K,
with GELU(x) = x sigmoid(1.702 x); 21,840 parameters for ten classes. The penultimate features are the 50 behind the
third GELU. Colours are turned to grey first (ITU-R 601), so that any set of pictures can be met; three equal channels
stay what they are. Tensor names are those of the released files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Lt
from torch import Tensor, nn
from torch.nn import functional

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.specs import ModelSpec
from workflow_scripts.models.base import Classifier

SPEC = ModelSpec(maps=False)

SIDE = 28
GREY = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Options:
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.5
    """Share of the second convolution's maps that a training step leaves out."""


class ConvNet(Classifier):
    """See the module's docstring. ``classes`` is K."""

    def __init__(self, options: Options, classes: int):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 10, 5), nn.Conv2d(10, 20, 5)
        self.fc1, self.fc2 = nn.Linear(320, 50), nn.Linear(50, classes)
        self.dropout = options.dropout
        # not made in each pass: a copy to a GPU makes it wait
        self.register_buffer("grey", torch.tensor(GREY)[:, None, None], persistent=False)

    @property
    def head(self) -> nn.Linear:
        """The last linear layer: weight (K, 50), bias (K,)."""
        return self.fc2

    def features(self, x: Tensor) -> Tensor:
        """(N, 3, 28, 28) in 0..1 -> (N, 50).

        Raises:
            OODError: images of another size.
        """
        if tuple(x.shape[2:]) != (SIDE, SIDE):
            raise OODError(f"mnist_convnet: images of {x.shape[3]}x{x.shape[2]}, expected {SIDE}x{SIDE}; set the "
                           f"dataset's geometry to squash{SIDE}")
        grey = (x * self.grey.to(x.dtype)).sum(1, keepdim=True)
        x = gelu(functional.max_pool2d(self.conv1(grey), 2))  # (N, 10, 12, 12)
        x = functional.dropout2d(self.conv2(x), self.dropout, self.training)
        x = gelu(functional.max_pool2d(x, 2))  # (N, 20, 4, 4)
        return gelu(self.fc1(x.flatten(1)))

    def maps(self, x: Tensor) -> Tensor:
        """None: two linear layers stand behind the last maps."""
        raise OODError("mnist_convnet: its penultimate features are of no map; leave out scores and methods that read "
                       "feature maps")


def gelu(x: Tensor) -> Tensor:
    """The GELU's approximation by a logistic function."""
    return x * torch.sigmoid(1.702 * x)


def build(options: Options, classes: int) -> ConvNet:
    """The network, with PyTorch's initial weights."""
    return ConvNet(options, classes)
