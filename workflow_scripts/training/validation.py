"""ID train images held out from training, to choose the epoch whose weights are kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from workflow_scripts.core.errors import OODError
from workflow_scripts.data.images.augment import augment
from workflow_scripts.data.images.randomness import permutation
from workflow_scripts.methods.recipe import Recipe, Validation
from workflow_scripts.models.base import eval_mode
from workflow_scripts.training.images import Images

ROOT = Path(__file__).resolve().parents[2]
_BATCH = 512  # images of one pass


def hold_out(section: Validation | None, count: int) -> tuple[Tensor, Tensor]:
    """Numbers of the train images and of the held-out ones, ascending, int64, on CPU.

    Args:
        section: the recipe's `validation`; ``None``: nothing is held out.
        count: ID train images.

    Raises:
        OODError: nothing is left to train on, or the list is not there, not of that length, or no list of numbers.
    """
    if section is None:
        return torch.arange(count), torch.empty(0, dtype=torch.int64)
    if section.count >= count:
        raise OODError(f"validation.count: {section.count} of {count} ID train images leave none to train on")
    held = permutation(section.seed, 0, count)[:section.count]
    if section.list is not None:
        held = _read(section.list, section.count, count)
    keep = torch.ones(count, dtype=torch.bool)
    keep[held] = False
    return keep.nonzero().flatten(), held.sort().values


def _read(name: str, wanted: int, count: int) -> Tensor:
    try:
        numbers = [int(line) for line in (ROOT / name).read_text(encoding="utf-8").split()]
    except FileNotFoundError:
        raise OODError(f"validation.list: there is no file {name} (relative to the repository)") from None
    except ValueError as error:
        raise OODError(f"validation.list: {name} must hold one image number per line ({error})") from None
    if len(numbers) != wanted or len(set(numbers)) != wanted:
        raise OODError(f"validation.list: {name} holds {len(numbers)} numbers, {len(set(numbers))} of them distinct, "
                       f"validation.count is {wanted}")
    if min(numbers) < 0 or max(numbers) >= count:
        raise OODError(f"validation.list: {name} has numbers {min(numbers)}..{max(numbers)}, the ID set {count} train "
                       "images, counted from 0")
    return torch.tensor(numbers)


def accuracy(network: nn.Module, data: Images, held: Tensor, recipe: Recipe,
             augmented: tuple[int, int] | None = None,
             predict: Callable[[nn.Module, Tensor], Tensor] = lambda network, x: network(x)) -> float:
    """Share of the images ``held`` that ``network`` classifies correctly, in eval mode.

    Args:
        data: the whole train set.
        recipe: its `normalise`, and `augment`.
        augmented: (seed, epoch) to augment the images as in training (goe.2g-4); ``None``: as they are.
        predict: gives the logits of images.
    """
    correct = torch.zeros((), device=data.labels.device)
    with eval_mode(network):
        for index in held.split(_BATCH):
            images = data.pixels[index]
            if augmented:
                images = augment(images, recipe.augment, *augmented, index)
            found = predict(network, data.inputs(images, recipe.normalise)).argmax(1)
            correct += (found == data.labels[index]).sum()
    return float(correct) / len(held)
