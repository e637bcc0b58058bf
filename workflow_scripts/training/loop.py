"""The training loop: shuffled ID images, one method's loss, SGD."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from workflow_scripts.data.augment import augment, normalise
from workflow_scripts.data.randomness import permutation
from workflow_scripts.errors import OODError
from workflow_scripts.methods.base import Batch, Method
from workflow_scripts.training.schedule import learning_rate


@dataclass(frozen=True)
class Images:
    """A labelled set that lives on the device: ``pixels`` (N, H, W, 3) uint8, ``labels`` (N,) int64."""

    pixels: Tensor
    labels: Tensor


def batches(data: Images, recipe: dict[str, Any], seed: int, epoch: int) -> Iterator[Batch]:
    """The epoch's batches: shuffled, augmented, normalised; a function of (seed, epoch) alone."""
    training = recipe["training"]
    count, size = len(data.labels), training["batch_size"]
    order = permutation(seed, epoch, count).to(data.labels.device)
    whole = count // size * size if training["drop_last"] else count
    for step, start in enumerate(range(0, whole, size)):
        index = order[start:start + size]
        pixels = augment(data.pixels[index], recipe["augment"], seed, epoch, index)
        yield Batch(normalise(pixels, recipe["normalise"]), data.labels[index], index, epoch, step)


def train(network: nn.Module, method: Method, data: Images, recipe: dict[str, Any], seed: int,
          steps: int | None = None, report: Callable[[str], None] = print) -> list[dict[str, float]]:
    """Train ``network`` in place.

    Args:
        network: on the device of ``data``.
        method: gives the loss of a step.
        data: ID train images.
        recipe: `training`, `augment` and `normalise` of the recipe.
        seed: of shuffling and augmentation.
        steps: stop after so many (``limit.steps``); ``None``: all epochs.
        report: receives a line per epoch.

    Returns:
        Per epoch: epoch, loss (mean over images), accuracy (running, in train mode), lr.

    Raises:
        OODError: the train set is smaller than a batch that may not be dropped, or the loss is not finite.
    """
    training = recipe["training"]
    size, epochs = training["batch_size"], training["epochs"]
    per_epoch = len(data.labels) // size if training["drop_last"] else -(-len(data.labels) // size)
    if not per_epoch:
        raise OODError(f"training.batch_size: {size} is more than the {len(data.labels)} train images, "
                       "and training.drop_last drops the only batch")
    network.to(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(network.parameters(), lr=training["lr"], momentum=training["momentum"],
                                nesterov=training["nesterov"], weight_decay=training["weight_decay"])
    history = []
    done = 0
    for epoch in range(epochs):
        network.train()
        started, seen = time.perf_counter(), 0
        total = torch.zeros((), device=data.labels.device)
        correct = torch.zeros((), device=data.labels.device)
        for batch in batches(data, recipe, seed, epoch):
            rate = learning_rate(training["lr"], training["schedule"], done, per_epoch, epochs)
            for group in optimiser.param_groups:
                group["lr"] = rate
            loss, logits = method.loss(network, batch)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            total += loss.detach() * len(batch.labels)
            correct += (logits.detach().argmax(1) == batch.labels).sum()
            seen += len(batch.labels)
            done += 1
            if done == steps:
                break
        mean = float(total) / seen
        if not torch.isfinite(total):
            raise OODError(f"the loss is {mean} in epoch {epoch + 1} (step {done}); "
                           "lower training.lr or look at the train images")
        history.append({"epoch": epoch + 1, "loss": mean, "accuracy": float(correct) / seen, "lr": rate})
        report(f"epoch {epoch + 1}/{epochs}  loss {mean:.4f}  accuracy {float(correct) / seen:.4f}  lr {rate:.4g}  "
               f"{seen / (time.perf_counter() - started):.0f} images/s")
        if done == steps:
            break
    return history
