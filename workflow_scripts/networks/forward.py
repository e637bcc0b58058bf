"""Images of a store as network inputs, batch by batch, and what a network makes of them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from workflow_scripts.core.changes import Normalise
from workflow_scripts.data.images.augment import normalise
from workflow_scripts.data.images.store import Store
from workflow_scripts.models.base import Classifier
from workflow_scripts.networks.architecture import Pass
from workflow_scripts.networks.batching import batch_size


def inputs(store: Store, how: Normalise, size: int, device: torch.device) -> Iterator[tuple[int, Tensor]]:
    """(number of the first image, (B, 3, H, W) network inputs); noise sets are inputs already and pass unchanged.

    Args:
        size: B, images at once.
    """
    for start in range(0, len(store.labels), size):
        if store.inputs is not None:
            x = torch.from_numpy(store.inputs[start:start + size]).to(device)
            yield start, x.to(memory_format=torch.channels_last)
        else:
            yield start, normalise(torch.from_numpy(store.photos()[start:start + size]).to(device), how)


def images_at_once(section: Pass, network: nn.Module, store: Store, device: torch.device) -> int:
    """The number of images of a pass: what is asked for, or found with the first one (:func:`batch_size`)."""
    _, example = next(inputs(store, section.normalise, 1, device))
    return batch_size(section.batch_size, network, example)


def penultimate(network: Classifier, x: Tensor, precision: str = "float32") -> Tensor:
    """Penultimate features (B, D) float32; ``bfloat16`` computes what is before them in bfloat16."""
    with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        h = network.features(x)
    return h.float()
