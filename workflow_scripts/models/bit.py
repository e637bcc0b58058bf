"""BiT ResNetV2 (Kolesnikov et al., ECCV 2020), DFB's network, through timm's implementation.

Pre-activation bottlenecks with GroupNorm (32 groups) and weight-standardised convolutions, a 7x7 stem of stride 2 and a
3x3 max-pooling; the maps are the last GroupNorm and ReLU. R50x1 has 23,500,352 parameters and 2,049 for each class. The
head starts at zero (BiT's rule). Tensor names are timm's below ``backbone``; :func:`convert` takes the official
``.npz`` files (`BiT-M-R50x1.npz`) and checkpoints in the tensor names of BiT's PyTorch code, which DFB's release uses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from timm.layers import StdConv2d
from timm.models.resnetv2 import ResNetV2
from torch import Tensor, nn

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.specs import ModelSpec
from workflow_scripts.models.base import Classifier, last
from workflow_scripts.models.resnet_gn import frozen_convolution

SIZES = {"R50x1": ((3, 4, 6, 3), 1), "R50x3": ((3, 4, 6, 3), 3), "R101x1": ((3, 4, 23, 3), 1),
         "R101x3": ((3, 4, 23, 3), 3), "R152x2": ((3, 8, 36, 3), 2), "R152x4": ((3, 8, 36, 3), 4)}
EPS = 1e-10  # of weight standardisation


SPEC = ModelSpec()


@dataclass(frozen=True)
class Options:
    size: Literal["R50x1", "R50x3", "R101x1", "R101x3", "R152x2", "R152x4"] = "R50x1"
    """Depth and width factor, as the files of weights are called (BiT-M-R50x1)."""
    half_stride: bool = False
    """The last stage keeps its input's size: maps of 8x8 instead of 4x4 for images of 128x128."""


class BiT(Classifier):
    """See the module's docstring. ``classes`` is K."""

    def __init__(self, options: Options, classes: int):
        super().__init__()
        layers, factor = SIZES[options.size]
        self.backbone = ResNetV2(list(layers), width_factor=factor, stem_type="fixed", num_classes=0, global_pool="",
                                 conv_layer=partial(StdConv2d, eps=EPS))
        if options.half_stride:
            first = self.backbone.stages[3].blocks[0]
            first.conv2.stride = first.downsample.conv.stride = (1, 1)
        self.fc = nn.Linear(self.backbone.num_features, classes)
        nn.init.zeros_(self.fc.weight)
        nn.init.zeros_(self.fc.bias)

    def maps(self, x: Tensor) -> Tensor:
        return last(self.stages(x))

    def stages(self, x: Tensor) -> Iterator[Tensor]:
        """The stem and the four stages, the last one after GroupNorm and ReLU."""
        x = self.backbone.stem(x)
        yield x
        for number, stage in enumerate(self.backbone.stages):
            x = stage(x)
            yield x if number < 3 else self.backbone.norm(x)

    def fold_batchnorms(self) -> None:
        for name, module in list(self.named_modules()):
            if isinstance(module, StdConv2d):
                self.set_submodule(name, frozen_convolution(module, EPS))


def convert(state: dict[str, Tensor], options: Options, path: str | Path) -> dict[str, Tensor]:
    """Tensors of a file in our names: TF arrays (kernels HWIO), BiT's PyTorch names, or our own, which pass unchanged.

    Raises:
        OODError: arrays of this size that are missing, all listed; arrays that belong to another size, or of another
            number of dimensions. Other widths are told apart when the tensors are loaded.
    """
    if "fc.weight" in state:
        return state
    arrays = any(name.startswith("resnet/") for name in state)
    wanted = dict(_npz(options) if arrays else _torch(options))
    missing, extra = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    if missing or extra:
        raise OODError(
            f"{path} does not hold BiT {options.size}:" +
            (f" {len(missing)} of {len(wanted)} arrays are missing: {', '.join(missing)}" if missing else "") +
            (";" * bool(missing and extra)) +
            (f" {len(extra)} do not belong (first: {extra[0]})" if extra else "") +
            "; take the file of that size, or correct the network's option `size`")
    result = {}
    for name, own in wanted.items():
        tensor = state[name]
        dimensions = 4 if name.endswith(("/kernel", "conv.weight", "conv1.weight", "conv2.weight", "conv3.weight",
                                         "downsample.weight")) else 1
        if tensor.ndim != dimensions:
            raise OODError(f"{path}: array '{name}' has shape {tuple(tensor.shape)}, expected {dimensions} dimensions; "
                           "the file is not one of BiT's")
        if arrays and tensor.ndim == 4:
            tensor = tensor.permute(3, 2, 0, 1)
        result[own] = (tensor.flatten(1) if own == "fc.weight" else tensor).contiguous()
    return result


def _blocks(options: Options) -> Iterator[tuple[int, int, str]]:
    """(block, unit, name of the block in timm); blocks and units count from 1."""
    for block, units in enumerate(SIZES[options.size][0], 1):
        for unit in range(1, units + 1):
            yield block, unit, f"backbone.stages.{block - 1}.blocks.{unit - 1}"


def _npz(options: Options) -> Iterator[tuple[str, str]]:
    """(array of the .npz, our tensor)."""
    conv = "standardized_conv2d/kernel"
    yield f"resnet/root_block/{conv}", "backbone.stem.conv.weight"
    for block, unit, own in _blocks(options):
        place = f"resnet/block{block}/unit{unit:02d}"
        for number, letter in enumerate("abc", 1):
            yield f"{place}/{letter}/{conv}", f"{own}.conv{number}.weight"
            yield f"{place}/{letter}/group_norm/gamma", f"{own}.norm{number}.weight"
            yield f"{place}/{letter}/group_norm/beta", f"{own}.norm{number}.bias"
        if unit == 1:
            yield f"{place}/a/proj/{conv}", f"{own}.downsample.conv.weight"
    for theirs, own in (("group_norm/gamma", "backbone.norm.weight"), ("group_norm/beta", "backbone.norm.bias"),
                        ("head/conv2d/kernel", "fc.weight"), ("head/conv2d/bias", "fc.bias")):
        yield f"resnet/{theirs}", own


def _torch(options: Options) -> Iterator[tuple[str, str]]:
    """(tensor of BiT's PyTorch code, our tensor)."""
    for theirs, own in _npz(options):
        name = theirs.removeprefix("resnet/").replace("/standardized_conv2d/kernel", ".weight")
        name = name.replace("root_block", "root.conv").replace("/a/proj", "/downsample")
        for number, letter in enumerate("abc", 1):
            name = name.replace(f"/{letter}.weight", f".conv{number}.weight").replace(
                f"/{letter}/group_norm", f".gn{number}")
        name = re.sub(r"^block", "body.block", re.sub(r"^group_norm", "head.gn", name))
        for old, new in (("head/conv2d", "head.conv"), ("/gamma", ".weight"), ("/beta", ".bias"),
                         ("/kernel", ".weight")):
            name = name.replace(old, new)
        yield name.replace("/", "."), own


def build(options: Options, classes: int) -> BiT:
    """The network with timm's initialisation and a head of zeros."""
    return BiT(options, classes)
