"""What the GPU benchmarks take from the project, in one place, without a configuration.

Options are made from the plugins' dataclasses themselves, and the recipe of CIFAR-10 that they share is built here.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from workflow_scripts.core import changes, plugins
from workflow_scripts.data.images.augment import augment, normalise
from workflow_scripts.data.images.long_side import LongSide
from workflow_scripts.data.images.randomness import permutation, uniforms
from workflow_scripts.methods.base import Batch, Method
from workflow_scripts.methods.recipe import Recipe
from workflow_scripts.metrics.ood import ood_metrics
from workflow_scripts.networks import devices
from workflow_scripts.networks.load import in_bfloat16
from workflow_scripts.scores import base as evidence
from workflow_scripts.stages.precompute_statistics import class_sums
from workflow_scripts.training.compiled import How, compiled
from workflow_scripts.training.images import Images
from workflow_scripts.training.layout import channels_last
from workflow_scripts.training.loop import Training, batches
from workflow_scripts.training.outliers import Outliers
from workflow_scripts.training.resume import Resume
from workflow_scripts.training.schedule import learning_rate

__all__ = [
    "CIFAR10", "CROP_FLIP", "SGD", "TWO_VIEWS", "Batch", "How", "Images", "LongSide", "Method", "Outliers", "Recipe",
    "Resume", "Training", "augment", "batches", "changes", "channels_last", "class_sums", "compiled", "devices",
    "evidence", "fitted_scores", "in_bfloat16", "known_of", "learning_rate", "method", "model", "moved", "names",
    "normalise", "on_features", "ood_metrics", "permutation", "recipe", "score", "scored", "uniforms",
]

CIFAR10 = changes.MeanStd(mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))
CROP_FLIP: list[changes.Step] = [changes.RandomCrop(random_crop=4), changes.HorizontalFlip(horizontal_flip=0.5)]
TWO_VIEWS: list[changes.Step] = [
    changes.RandomResizedCrop(random_resized_crop=changes.ResizedWindow(size=32, scale=(0.2, 1.0))),
    changes.HorizontalFlip(horizontal_flip=0.5),
    changes.ColorJitter(color_jitter=changes.Jitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, p=0.8)),
    changes.Grayscale(grayscale=0.2)]
SGD: dict[str, Any] = {"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}


def recipe(epochs: int, batch_size: int, lr: float, floor: float = 0.0, **further: Any) -> Recipe:
    """CIFAR-10 with crop and flip, SGD, a cosine down to ``floor * lr``; ``further`` fields of the recipe."""
    training = {"epochs": epochs, "batch_size": batch_size, "lr": lr, "drop_last": True, **SGD,
                "schedule": {"name": "cosine", "floor": floor}}
    return Recipe.of(normalise=CIFAR10, augment=CROP_FLIP, training=training, **further)


def names(package: str) -> tuple[str, ...]:
    """Plugins of ``scores``, ``models`` or ``methods``."""
    return plugins.names(package)


def model(name: str, classes: int, **options: Any) -> nn.Module:
    """A network with fresh weights."""
    module = plugins.load("models", name)
    return module.build(module.Options(**options), classes)


def method(name: str, **options: Any) -> Method:
    """A training method, corrected."""
    module = plugins.load("methods", name)
    return module.build(module.Options(**options), ())


def score(name: str, **options: Any) -> tuple[Any, Any]:
    """A score's module and its options."""
    module = plugins.load("scores", name)
    return module, module.Options(**options)


def on_features() -> list[str]:
    """Scores that read neither the network nor a background output nor other scores."""
    beside = {"network", "background", "train_background", "shuffled", "scores", "train_scores"}
    return [name for name in names("scores") if not beside & plugins.spec("scores", name).needs]


def known_of(head: nn.Linear, norm: nn.Module | None, features: Tensor, logits: Tensor, labels: Tensor,
             ) -> evidence.Known:
    """What is known before a test image is seen, on the device of ``features`` (M, D)."""
    sums, counts = class_sums(features.cpu().numpy(), labels.cpu().numpy(), logits.shape[1])
    means, mean = sums / counts[:, None], sums.sum(axis=0) / counts.sum()
    statistics = evidence.Statistics(*(torch.from_numpy(np.asarray(a)).to(features.device)
                                       for a in (means, counts, mean)))
    batchnorm = evidence.BatchNorm(norm.weight.detach(), norm.bias.detach()) if norm is not None else None
    return evidence.Known(evidence.Head(head.weight.detach(), head.bias.detach()), batchnorm, statistics, features,
                          logits, labels)


def only(part: Any, kinds: frozenset[str]) -> Any:
    """Evidence or a batch without what is not in ``kinds``."""
    return type(part)(**{f.name: getattr(part, f.name) for f in fields(part) if f.name in kinds})


def fitted_scores(name: str, known: evidence.Known, **options: Any) -> Any:
    """A fitted score as a function of a batch. -> (N,) float64 on the device of its evidence."""
    module, chosen = score(name, **options)
    kinds = evidence.needs(module, chosen)
    known = only(known, kinds)
    state = module.fit(chosen, known) if hasattr(module, "fit") else None
    return lambda batch: module.score(chosen, known, state, only(batch, kinds))


def scored(name: str, known: evidence.Known, batch: evidence.Batch, **options: Any) -> np.ndarray:
    """Scores of a batch on the CPU. -> (N,) float64."""
    found = fitted_scores(name, known, **options)(batch)
    return found.cpu().numpy() if isinstance(found, Tensor) else np.asarray(found)


def moved(part: Any, device: torch.device) -> Any:
    """Evidence of numpy arrays as tensors on a device."""
    if is_dataclass(part):
        return replace(part, **{f.name: moved(getattr(part, f.name), device) for f in fields(part)})
    return None if part is None else torch.from_numpy(np.ascontiguousarray(part)).to(device)
