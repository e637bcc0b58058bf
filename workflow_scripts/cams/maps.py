"""Class activation maps over several scales, for whole batches (DFB 2e, stage 2).

For each scale the normalised images are resized (bicubic, not anti-aliased) and passed through the network with their
mirror images; the head, bias included, is applied at every place of the maps and rectified; the mirrored map is turned
back and added. The sum over scales of the maps, resized bilinearly to the image, is divided by its maximum + 1e-5.
Only one class of each image is kept, so no map of another class is ever made.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from workflow_scripts.models.base import Classifier

SCALES = (1.0, 0.5, 1.5, 2.0)
_GRID = 16  # maps are resized to multiples of it, then cut


def mirrored_pair(network: Classifier, x: Tensor, flip: bool = True) -> tuple[Tensor, Tensor | None]:
    """Last feature maps of the images and of their mirror images, from one pass. (N, 3, H, W) -> (N, D, h, w) each."""
    if not flip:
        return network.maps(x), None
    return tuple(network.maps(torch.cat((x, x.flip(3)))).chunk(2))


def class_map(maps: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The rectified logit of one class per image at every place.

    Args:
        maps: (N, D, h, w).
        weight, bias: (N, D) and (N,), rows of the head.

    Returns:
        (N, h, w).
    """
    logits = torch.bmm(weight[:, None], maps.flatten(2))[:, 0] + bias[:, None]
    return logits.relu_().view(len(maps), *maps.shape[2:])


def enlarged(maps: Sequence[Tensor], height: int, width: int) -> Tensor:
    """Sum of maps of several sizes, each brought to the image's size, divided by its maximum + 1e-5.

    (N, h_s, w_s) each -> (N, height, width), at most 1; all zero where every map is.
    """
    size = tuple(_GRID * -(-side // _GRID) for side in (height, width))
    total = sum(functional.interpolate(m[:, None], size, mode="bilinear", align_corners=False) for m in maps)
    total = total[:, 0, :height, :width]
    return total / (total.amax((1, 2), keepdim=True) + 1e-5)


def rescaled(x: Tensor, scale: float) -> Tensor:
    """Normalised images at a scale. (N, 3, H, W) -> (N, 3, round(H scale), round(W scale))."""
    if scale == 1:
        return x
    size = [round(side * scale) for side in x.shape[2:]]
    return functional.interpolate(x, size, mode="bicubic", align_corners=False).contiguous(
        memory_format=torch.channels_last)


@torch.inference_mode()
def activation_maps(network: Classifier, x: Tensor, classes: Tensor | None = None, scales: Sequence[float] = SCALES,
                    flip: bool = True) -> tuple[Tensor, Tensor]:
    """The map of one class of each image.

    Args:
        network: a classifier in eval mode.
        x: (N, 3, H, W) normalised images.
        classes: (N,) int64, the class of each map; ``None``: the one predicted at scale 1.
        scales: of the passes; the class is predicted at scale 1 wherever it stands.
        flip: add the mirror image's maps.

    Returns:
        (N, H, W) float32 in 0..1, and the classes (N,) int64.
    """
    head, found = network.head, []
    first = mirrored_pair(network, x, flip) if 1 in scales or classes is None else None
    if classes is None:
        classes = head(first[0].mean((2, 3))).argmax(1)
    weight, bias = head.weight[classes], head.bias[classes]
    for scale in scales:
        image, mirror = first if scale == 1 else mirrored_pair(network, rescaled(x, scale), flip)
        cam = class_map(image, weight, bias)
        if mirror is not None:
            cam = cam + class_map(mirror, weight, bias).flip(2)
        found.append(cam)
    return enlarged(found, *x.shape[2:]), classes
