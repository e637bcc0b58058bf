"""Networks from the section of the configuration that names them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from workflow_scripts.core import plugins
from workflow_scripts.models.base import Classifier
from workflow_scripts.networks import checkpoint
from workflow_scripts.networks.architecture import Network


def build(section: Network, classes: int) -> Classifier:
    """A network with fresh weights and K = ``classes`` outputs."""
    return plugins.load("models", section.model).build(section.options, classes)


def trained(section: Network, path: str, device: torch.device) -> Classifier:
    """The network of a checkpoint, in eval mode on ``where``, its weights frozen.

    A network with a background output becomes a classifier of the K ID classes, ``head`` their rows of its head, with
    the background's row beside it (``background``, a linear layer to one value): whatever reads head and logits sees K
    classes (dfb 2b, lossless conversion). As released (dfb.2h-1), the checkpoint's head is replaced by a random one.

    Raises:
        OODError: the file is no checkpoint, or of another network.
    """
    content = checkpoint.read(path)
    about = content["about"]
    network = build(section, len(about["classes"]) + about.get("background", False))
    checkpoint.load_weights(network, content["state_dict"], path, section.name)
    if "dfb.2h-1" in about.get("released", ()):
        randomise_head(network, about["seed"] or 0)
    if about.get("background"):
        split_background(network)
    network.eval().fold_batchnorms()
    return network.to(device, memory_format=torch.channels_last).requires_grad_(False)


def in_bfloat16(network: Classifier) -> None:
    """Compute what is before the penultimate features in bfloat16; its results are float32 again, and so is the head.

    Weights stay float32 and are rounded where they are used, so state, optimiser and checkpoints are as always.
    """
    def run(compute: Callable[[Tensor], Tensor], rounded: bool) -> Callable[[Tensor], Tensor]:
        def computed(x: Tensor) -> Tensor:
            with torch.autocast(x.device.type, torch.bfloat16, enabled=rounded):
                return compute(x if rounded else x.float()).float()

        return computed

    # beside the methods of the class, for this network alone; the head on maps is `dense`, outside
    network.__dict__ |= {name: run(getattr(network, name), True) for name in ("maps", "features", "forward")
                         if hasattr(network, name)}
    network.head.__dict__["forward"] = run(network.head.forward, False)


def randomise_head(network: Classifier, seed: int) -> None:
    """Uniform weights and biases within 1 / sqrt(D), torch's rule for a linear layer."""
    generator = torch.Generator().manual_seed(seed)
    bound = network.head.in_features ** -0.5
    with torch.no_grad():
        for tensor in (network.head.weight, network.head.bias):
            tensor.copy_((2 * torch.rand(tensor.shape, generator=generator) - 1) * bound)


def split_background(network: Classifier) -> None:
    """Divide a head of K + 1 rows: the first becomes ``network.background``, the others are the new head."""
    old = network.head
    for name, rows in (("background", slice(0, 1)), (head_name(network), slice(1, None))):
        layer = nn.Linear(old.in_features, len(old.bias[rows]))
        layer.load_state_dict({"weight": old.weight[rows], "bias": old.bias[rows]})
        network.set_submodule(name, layer) if name != "background" else network.add_module(name, layer)


def head_name(network: Classifier) -> str:
    """Name of the head among the network's modules."""
    return next(name for name, module in network.named_modules() if module is network.head)


def start_from(network: Classifier, parent: dict[str, Any], background: bool, path: str, name: str,
               head_too: bool = False) -> None:
    """Load the weights of another recipe; where the background is new, the head keeps its own fresh rows.

    Args:
        parent: the content of its checkpoint.
        background: whether ``network`` has an output for it.
        head_too: the K other rows of the head are the parent's.

    Raises:
        OODError: the weights are of another network.
    """
    state = parent["state_dict"]
    if background and not parent["about"].get("background"):
        own, head = network.state_dict(), head_name(network)
        keys = (f"{head}.weight", f"{head}.bias")
        state = state | {key: torch.cat((own[key][:1], state[key])) if head_too else own[key] for key in keys}
    checkpoint.load_weights(network, state, path, name)
