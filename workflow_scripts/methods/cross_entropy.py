"""Cross-entropy on the ID images: the pretraining that every post-hoc score is measured on, and G-OE's baseline (MCP).

As released, G-OE's baseline passes the outliers through the network beside the ID images and then ignores their logits:
they are in no loss, but two thirds of every batch norm statistic are theirs (defect goe.2g-2).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from workflow_scripts.core.specs import MethodSpec
from workflow_scripts.methods.base import Batch, Method, Sizes, train_only

SPEC = MethodSpec(
    defects={
        "goe.2g-2": "the baseline's batches hold outliers, so that its batch norm sees them",
    },
    shared_defects=("goe.2g-4", "goe.2g-5"),
    outliers="goe.2g-2",
)


@dataclass(frozen=True)
class Options:
    label_smoothing: float = 0.0
    """Share of the target spread evenly over all classes; 0 in all five papers."""
    train: tuple[str, ...] = ()
    """Prefixes of the network's tensors that are trained, e.g. [layer4, fc]; none: all of them."""


class CrossEntropy(Method):
    """Mean cross-entropy of the ID batch."""

    def __init__(self, options: Options, contaminated: bool):
        super().__init__()
        self.options = options
        self.outliers = contaminated

    def setup(self, network: nn.Module, sizes: Sizes) -> None:
        train_only(network, self.options.train)

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        if self.outliers:
            logits = network(torch.cat((batch.images, batch.outliers)))[:len(batch.images)]
        else:
            logits = network(batch.images)
        return functional.cross_entropy(logits, batch.labels, label_smoothing=self.options.label_smoothing), logits


def build(options: Options, released: tuple[str, ...]) -> CrossEntropy:
    return CrossEntropy(options, contaminated="goe.2g-2" in released)
