"""RotPred: a classifier that also predicts by how many quarter turns its image is rotated (Hendrycks et al., NeurIPS
2019).

L = CE(f(x), y) + weight * mean_r CE(g(R_r x), r) over the four rotations r, where the rotation head g is a linear layer
on the penultimate features. The four copies of an image share one forward pass.

The training record holds the rotation head (``rotation/weight`` (4, D), ``rotation/bias`` (4,)). The paper's own score,
KL(uniform || softmax f(x)) - mean_r CE(g(R_r x), r), is not covered: a checkpoint is the classifier alone, and no score
reads that head. Every score of a classifier can be asked for. The release's heads for translations are left out; their
weight is 0 in its training command.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.specs import MethodSpec
from workflow_scripts.methods.base import Batch, Method, Sizes

SPEC = MethodSpec()


@dataclass(frozen=True)
class Options:
    weight: Annotated[float, Ge(0)] = 1.0
    """Weight of the rotations' loss: the release's 3 of a mean over three tasks, and OpenOOD's."""


def rotated(images: Tensor) -> Tensor:
    """The images turned by 0, 90, 180 and 270 degrees, one turn after the other. (B, 3, H, H) -> (4 B, 3, H, H).

    Raises:
        OODError: the images are not square.
    """
    height, width = images.shape[2:]
    if height != width:
        raise OODError(f"RotPred: images of {height}x{width} pixels, expected square ones, which can be turned by 90 "
                       "degrees; give the ID set a square geometry, e.g. geometry: squash32")
    turned = torch.cat([torch.rot90(images, turn, (2, 3)) for turn in range(4)])
    return turned.contiguous(memory_format=torch.channels_last)


class RotPred(Method):
    """See the module's docstring."""

    def __init__(self, options: Options):
        super().__init__()
        self.options = options

    def setup(self, network: nn.Module, sizes: Sizes) -> None:
        self.rotation = nn.Linear(network.head.in_features, 4)

    def parameter_groups(self, network: nn.Module) -> list[dict[str, Any]]:
        return [{"params": [*(p for p in network.parameters() if p.requires_grad), *self.rotation.parameters()]}]

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        features = network.features(rotated(batch.images))
        logits = network.head(features[:len(batch.labels)])
        turns = torch.arange(4, device=features.device).repeat_interleave(len(batch.labels))
        rotation = functional.cross_entropy(self.rotation(features), turns)
        return functional.cross_entropy(logits, batch.labels) + self.options.weight * rotation, logits

    def record(self) -> dict[str, Tensor]:
        return {f"rotation/{name}": value for name, value in self.rotation.state_dict().items()}


def build(options: Options, released: tuple[str, ...]) -> RotPred:
    return RotPred(options)
