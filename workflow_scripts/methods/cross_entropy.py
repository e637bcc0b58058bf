"""Cross-entropy on the ID images: the pretraining that every post-hoc score is measured on."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from workflow_scripts.methods.base import Batch, Method


@dataclass(frozen=True)
class Options:
    label_smoothing: float = 0.0
    """Share of the target spread evenly over all classes; 0 in all five papers."""


class CrossEntropy(Method):
    """Mean cross-entropy of the ID batch."""

    def __init__(self, options: Options):
        self.options = options

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        logits = network(batch.images)
        return functional.cross_entropy(logits, batch.labels, label_smoothing=self.options.label_smoothing), logits


def build(options: Options, released: tuple[str, ...]) -> CrossEntropy:
    return CrossEntropy(options)
