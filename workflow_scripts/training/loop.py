"""The training loop: shuffled ID images (and outliers beside them), one method's loss, SGD."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from workflow_scripts.data.augment import normalise
from workflow_scripts.data.randomness import permutation
from workflow_scripts.errors import OODError
from workflow_scripts.methods.base import Batch, Method
from workflow_scripts.training.images import Images
from workflow_scripts.training.outliers import Outliers
from workflow_scripts.training.schedule import learning_rate
from workflow_scripts.training.validation import accuracy, hold_out


def batches(data: Images, recipe: dict[str, Any], seed: int, epoch: int, rows: Tensor | None = None,
            outliers: Outliers | None = None) -> Iterator[Batch]:
    """The epoch's batches: shuffled, augmented, normalised; a function of (seed, epoch) alone.

    Args:
        rows: numbers of the images to train on; ``None``: all.
        outliers: give each batch its outliers; the ID images alone decide when the epoch ends.
    """
    training = recipe["training"]
    rows = torch.arange(len(data.labels)) if rows is None else rows
    count, size = len(rows), training["batch_size"]
    whole = count // size * size if training["drop_last"] else count
    parts = rows[permutation(seed, epoch, count)][:whole].split(size)
    beside = outliers.batches(recipe, epoch) if outliers else None
    for step, (index, images) in enumerate(data.batches(parts, recipe["augment"], seed, epoch)):
        novel, numbers = next(beside) if beside else (None, None)
        images = normalise(images, recipe["normalise"])
        yield Batch(images, data.labels[index], index, seed, epoch, step, novel, numbers)


def train(network: nn.Module, method: Method, data: Images, recipe: dict[str, Any], seed: int,
          steps: int | None = None, report: Callable[[str], None] = print, outliers: Outliers | None = None,
          released: tuple[str, ...] = ()) -> list[dict[str, float]]:
    """Train ``network`` in place.

    Args:
        network: on the device of ``data``.
        method: gives the loss of a step.
        data: ID train images.
        recipe: `training`, `augment` and `normalise` of the recipe, and where given `outliers`, `validation`, `keep`.
        seed: of shuffling and augmentation.
        steps: stop after so many (``limit.steps``); ``None``: all epochs.
        report: receives a line per epoch.
        outliers: images that ``method`` trains with, if it does.
        released: defects to reproduce; the loop itself has goe.2g-4.

    Returns:
        Per epoch: epoch, loss (mean over images), accuracy (running, in train mode), lr, and where images are held out
        validation (accuracy). The network has the last epoch's weights, or with ``keep: best`` those of the first
        epoch with the best validation.

    Raises:
        OODError: the train set is smaller than a batch that may not be dropped, the method lacks its outliers or does
            not fit the recipe, or the loss is not finite.
    """
    training = recipe["training"]
    rows, held = hold_out(recipe.get("validation"), len(data.labels))
    held = held.to(data.labels.device)
    best = _Best(recipe.get("keep") == "best", len(held))
    size, epochs = training["batch_size"], training["epochs"]
    per_epoch = len(rows) // size if training["drop_last"] else -(-len(rows) // size)
    if not per_epoch:
        raise OODError(f"training.batch_size: {size} is more than the {len(rows)} train images, "
                       "and training.drop_last drops the only batch")
    if method.outliers and outliers is None:
        raise OODError("outliers: this method trains with outliers, but the recipe names none")
    method.check(recipe)
    network.to(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(method.parameter_groups(network), lr=training["lr"], momentum=training["momentum"],
                                nesterov=training["nesterov"], weight_decay=training["weight_decay"])
    bases = [group["lr"] for group in optimiser.param_groups]
    history = []
    done = 0
    for epoch in range(epochs):
        method.start_epoch(network, epoch)
        started, seen = time.perf_counter(), 0
        total = torch.zeros((), device=data.labels.device)
        correct = torch.zeros((), device=data.labels.device)
        for batch in batches(data, recipe, seed, epoch, rows, outliers if method.outliers else None):
            for group, base in zip(optimiser.param_groups, bases, strict=True):
                if not group.get("constant"):
                    group["lr"] = learning_rate(base, training["schedule"], done, per_epoch, epochs)
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
        rate = learning_rate(training["lr"], training["schedule"], done - 1, per_epoch, epochs)
        history.append({"epoch": epoch + 1, "loss": mean, "accuracy": float(correct) / seen, "lr": rate})
        line = f"epoch {epoch + 1}/{epochs}  loss {mean:.4f}  accuracy {float(correct) / seen:.4f}  lr {rate:.4g}  "
        speed = seen / (time.perf_counter() - started)
        if len(held):
            augmented = (seed, epoch) if "goe.2g-4" in released else None
            value = accuracy(network, data.pixels, data.labels, held, recipe, augmented)
            history[-1]["validation"] = value
            best.update(network, value)
            line += f"validation {value:.4f}  "
        report(f"{line}{speed:.0f} images/s")
        if done == steps:
            break
    best.restore(network)
    return history


class _Best:
    """A copy of the weights of the best epoch so far, where it is wanted. Raises OODError when nothing is held out."""

    def __init__(self, wanted: bool, held: int):
        if wanted and not held:
            raise OODError("keep: 'best' needs held-out images to choose by; add `validation` or set keep: last")
        self.wanted = wanted
        self.value = -1.0
        self.state: dict[str, Tensor] = {}

    def update(self, network: nn.Module, value: float) -> None:
        if self.wanted and value > self.value:
            self.value = value
            self.state = {name: tensor.clone() for name, tensor in network.state_dict().items()}

    def restore(self, network: nn.Module) -> None:
        if self.wanted:
            network.load_state_dict(self.state)
