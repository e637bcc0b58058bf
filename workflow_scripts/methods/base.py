"""What a training method offers to the loop.

A method is one module in this folder, or a user's own file (docs/own.md), with

``Options``
    its hyper-parameters, a frozen standard dataclass with a docstring below each field;
``SPEC``
    a :class:`~workflow_scripts.core.specs.MethodSpec`: the defects it can reproduce, when it trains with outliers, ...;
``build(options, released) -> Method``
    the method, corrected but for the defects in ``released``.

A method holds losses and
algorithms and touches no file. What it learns or remembers beside the network (weights of images, queues, prototypes,
heads of its own) are buffers and parameters of the method itself, which is a torch module: an interrupted run keeps and
restores them with the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from workflow_scripts.core.errors import OODError
from workflow_scripts.methods.recipe import Recipe


@dataclass(frozen=True)
class Batch:
    """Images of one step, augmented and normalised.

    ``images`` (B, 3, H, W) float32 in channels-last memory, ``labels`` (B,) int64 and ``index`` (B,) int64 (image
    numbers in the store) are ID; ``outliers`` (M, 3, H, W) and ``outlier_index`` (M,) are ``None`` where the method has
    no outliers, and so is ``second``, another augmentation of the same images, where the recipe has one view. ``seed``,
    ``epoch`` and ``step`` (within the epoch, 0-based) are what a method's own random numbers depend on.
    """

    images: Tensor
    labels: Tensor
    index: Tensor
    seed: int
    epoch: int
    step: int
    outliers: Tensor | None = None
    outlier_index: Tensor | None = None
    second: Tensor | None = None
    masks: Tensor | None = None
    """Pseudo-masks (B, H, W) int64 of the images, changed as they were; ``None`` where the recipe has none."""
    host_labels: Tensor | None = None
    """``labels`` on the CPU."""

    def on_host(self) -> Tensor:
        """The labels on the CPU, where a method that decides something by them need not wait for a GPU."""
        return self.labels.cpu() if self.host_labels is None else self.host_labels


@dataclass(frozen=True)
class Sizes:
    """What a method may need to know of its run before the first step."""

    seed: int
    epochs: int
    steps: int
    """Steps of an epoch."""
    images: int
    """ID train images in the store."""
    device: torch.device
    outliers: int = 0
    """Outlier images in the store; 0 where the method has none."""
    outlier_batch: int = 0
    """Outliers per step."""


@dataclass(frozen=True)
class EvalData:
    """Passes over images as they are, not augmented, for what is set up before or fitted after the training.

    ``train()`` and ``test()`` give (inputs (B, 3, H, W), labels (B,)) of the ID train images and of those that
    ``SPEC.reads_test`` asks for; ``labels`` (M,) are those of all train images.
    """

    labels: Tensor
    train: Callable[[], Iterator[tuple[Tensor, Tensor]]]
    test: Callable[[], Iterator[tuple[Tensor, Tensor]]]


class Method(nn.Module):
    """A way to train: the loss of one step, and what is optimised."""

    outliers = False
    """True: its batches hold outliers."""
    order: Tensor | None = None
    """Numbers of the epoch's outliers in the order of their use, where the method draws them itself (int64, on CPU)."""

    def check(self, recipe: Recipe) -> None:
        """Refuse options that do not fit the recipe, before the first step. Raises OODError."""

    def setup(self, network: nn.Module, sizes: Sizes) -> None:
        """Called once, before the optimiser is made: parameters and buffers whose sizes depend on the run."""

    def parameter_groups(self, network: nn.Module) -> list[dict[str, Any]]:
        """What the optimiser changes: groups of ``torch.optim.SGD`` (or Adam, which has no momentum), which may set
        their own ``lr``, ``momentum``, ``nesterov`` and ``weight_decay``. The schedule scales every group's ``lr`` by
        the same factor; a group with ``"constant": True`` is left at its own."""
        return [{"params": [p for p in network.parameters() if p.requires_grad]}]

    def begin(self, network: nn.Module, eval_data: EvalData) -> None:
        """Called once before the first step (not where a run goes on). Raises OODError when the images do not fit."""

    def start_epoch(self, network: nn.Module, epoch: int) -> None:
        """Called before an epoch's first step (not where a run goes on in the middle); sets the network's mode."""
        network.train()

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss to minimise (a scalar) and the logits (B, K) of the ID images, for the running accuracy."""
        raise NotImplementedError

    def predict(self, network: nn.Module, images: Tensor) -> Tensor:
        """Logits (B, K) of the ID classes, to measure the accuracy on held-out images."""
        return network(images)

    def after_step(self, network: nn.Module, batch: Batch) -> None:
        """Called after the optimiser's step. Raises OODError when what the method learns is broken."""

    def end_epoch(self, network: nn.Module, epoch: int) -> None:
        """Called after an epoch's last step."""

    def finish(self, network: nn.Module, eval_data: EvalData) -> None:
        """Called once after the last step, before the weights are written."""

    def record(self) -> dict[str, Tensor]:
        """Arrays that other stages read from the training record, by name."""
        return {}


def train_only(network: nn.Module, prefixes: Sequence[str]) -> None:
    """Leave the tensors as they are whose names begin with none of ``prefixes``; none: all are trained.

    Raises:
        OODError: a prefix that no tensor's name begins with.
    """
    named = dict(network.named_parameters())
    for prefix in prefixes:
        if not any(name.startswith(prefix) for name in named):
            stages = sorted({name.split(".")[0] for name in named})
            raise OODError(f"options.train: no tensor begins with '{prefix}'; the network has {', '.join(stages)}")
    if prefixes:
        for name, parameter in named.items():
            parameter.requires_grad_(name.startswith(tuple(prefixes)))
