"""How well a network with a background class finds the pseudo-masks of images that it did not train on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from workflow_scripts.core.changes import Normalise
from workflow_scripts.data.images.augment import normalise, resize_masks
from workflow_scripts.models.base import eval_mode, upsampled
from workflow_scripts.training.images import Images

_BATCH = 64  # images of one pass


def segmentation(network: nn.Module, data: Images, rows: Tensor, how: Normalise) -> dict[str, float]:
    """Share of pixels with the right label, and the mean over labels of intersection over union.

    Args:
        network: with K + 1 outputs.
        data: with ``masks``.
        rows: (M,) numbers of the images.
        how: `normalise` of the recipe.

    Returns:
        ``pixel_accuracy`` and ``miou`` (over the labels that stand in a mask or a prediction).
    """
    labels = network.head.out_features
    pairs = torch.zeros(labels * labels, dtype=torch.int64, device=rows.device)
    with eval_mode(network):
        for index in rows.split(_BATCH):
            size = data.pixels.shape[1:3]
            found = upsampled(network.dense(normalise(data.pixels[index], how)), *size).argmax(1)
            true = resize_masks(data.masks[index], *size).long()
            pairs += torch.bincount((true * labels + found).flatten(), minlength=labels * labels)
    pairs = pairs.view(labels, labels).double()
    both = pairs.diagonal()
    either = pairs.sum(0) + pairs.sum(1) - both
    there = either > 0
    return {"pixel_accuracy": float(both.sum() / pairs.sum()), "miou": float((both[there] / either[there]).mean())}
