"""What a training method offers to the loop.

A method is one module in this folder with

``Options``
    its hyper-parameters, a frozen standard dataclass with a docstring below each field;
``DEFECTS``
    optional; ids out of :data:`workflow_scripts.fidelity.DEFECTS` that it can reproduce;
``build(options, released) -> Method``
    the method, corrected but for the defects in ``released``.

It holds losses and algorithms and touches no file.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Batch:
    """ID images of one step: ``images`` (B, 3, H, W) normalised, ``labels`` (B,), ``index`` (B,) image numbers."""

    images: Tensor
    labels: Tensor
    index: Tensor
    epoch: int
    step: int


class Method:
    """A way to train: the loss of one step."""

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss to minimise (a scalar) and the logits (B, K) of the ID images, for the running accuracy."""
        raise NotImplementedError
