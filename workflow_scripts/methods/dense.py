"""Dense training of a network with K + 1 outputs on pseudo-masks (DFB, MM 2024): foreground classes and one background.

The head is applied at every place of the maps, its logits are enlarged to the image (bilinear, aligned corners), and
the loss is the mean cross-entropy of the pixels; label 0 is background, c + 1 is class c. Since a linear head commutes
with averaging, the same weights are an image-level classifier of K + 1 classes afterwards, of which output 0 is the
background's.

The release lacks this stage; it is built from the paper's idea and the traces in the code. Steps, learning rate and
whether images are mixed are not known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.specs import MethodSpec
from workflow_scripts.methods.base import Batch, Method
from workflow_scripts.methods.mixup import mixing
from workflow_scripts.methods.recipe import Recipe
from workflow_scripts.models.base import upsampled

SPEC = MethodSpec(
    defects={
        "dfb.2h-1": "the checkpoint's head is dropped and a random one is used",
    },
    background=True,
)


@dataclass(frozen=True)
class Options:
    head: Literal["new", "parent"] = "new"
    """Head of a network that starts from a classifier's: `new`, or its K rows with a new one for the background."""
    mixup: Annotated[float, Ge(0)] = 0.0
    """Parameter of the Beta distribution by which images and the cross-entropies of their pseudo-masks are mixed; 0: no
    mixup."""


class Dense(Method):
    """See the module's docstring."""

    def __init__(self, options: Options):
        super().__init__()
        self.options = options

    def check(self, recipe: Recipe) -> None:
        """Refuse a recipe without pseudo-masks."""
        if not recipe.masks:
            raise OODError("masks: method dense trains on pseudo-masks; name the recipe whose network makes them, "
                           "e.g. masks: {classifier: classifier}")

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        images, lam = batch.images, 1.0
        if self.options.mixup:
            lam, other = mixing(batch, self.options.mixup)
            images = torch.lerp(images[other], images, lam)
        dense = network.dense(images)
        logits = upsampled(dense, *images.shape[2:])
        loss = functional.cross_entropy(logits, batch.masks)
        if lam < 1:
            loss = lam * loss + (1 - lam) * functional.cross_entropy(logits, batch.masks[other])
        return loss, dense.detach().mean((2, 3))[:, 1:]

    def predict(self, network: nn.Module, images: Tensor) -> Tensor:
        return network(images)[:, 1:]


def build(options: Options, released: tuple[str, ...]) -> Dense:
    return Dense(options)
