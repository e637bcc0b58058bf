"""NPOS on CLIP (Tao, Du, Zhu, Li, ICLR 2023): the last blocks of a CLIP image tower, trained against its text head.

    L = CE(u / T) + weight L_bce,    u = c / |c|,

where c are the cosines of an image's embedding with the class texts and T divides their unit vector (LogitNorm with
another temperature). Trained are the network's tail and phi; the blocks before and the texts are not, so that its
images may be given as the frozen blocks' output (recipe key `frozen_blocks`). Outliers are synthesised from the
embeddings, which are not normalised, as from scratch (:mod:`workflow_scripts.methods.npos`). Scored by MCM.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.specs import MethodSpec
from workflow_scripts.methods import npos
from workflow_scripts.methods.base import Batch, EvalData, Sizes
from workflow_scripts.methods.recipe import Recipe

SPEC = MethodSpec(
    bank=("queue", "K", "select", "pick"),
    defects={
        "npos.B14": "the CLIP schedule multiplies the learning rate by 10 at its milestone",
    },
    shared_defects=("npos.B2",),
    late_from="start",
    late={"weight": 0.1, "K": 1, "select": 1, "pick": 1, "sample_from": 1, "keep": 1, "sigma": 0.1, "hidden": 1,
          "phi_lr": 0.1, "balanced": False, "snapshots": ()},
    late_defects=("npos.B2",),
    never_late=("weight",),
    gathered=("queue",),
    carried=("broken", "queues."),
)


@dataclass(frozen=True)
class Options:
    start: Annotated[int, Ge(0)] = 10
    """Epochs before outliers are synthesised (start_epoch)."""
    queue: Annotated[int, Gt(0)] = 1000
    """Embeddings kept per class, N (sample_number)."""
    K: Annotated[int, Gt(0)] = 400
    """Which neighbour's distance says how far out an embedding is; itself is the first."""
    select: Annotated[int, Gt(0)] = 300
    """Size of a class's boundary."""
    pick: Annotated[int, Gt(0)] = 3
    """Boundary embeddings drawn per class and step (pick_nums)."""
    sample_from: Annotated[int, Gt(0)] = 1500
    """Candidates around each of them."""
    keep: Annotated[int, Gt(0)] = 2
    """Candidates kept of each of them (ID_points_num)."""
    sigma: Annotated[float, Gt(0)] = 0.1
    """Standard deviation of the noise (the release's cov_mat)."""
    weight: Annotated[float, Ge(0)] = 0.1
    """Weight of the outliers' loss (loss_weight); 0: no outliers."""
    T: Annotated[float, Gt(0)] = 8.0
    """Divisor of the unit logit vector."""
    hidden: Annotated[int, Gt(0)] = 32
    """Hidden units of phi."""
    phi_lr: Annotated[float, Gt(0)] = 0.1
    """Learning rate of phi over that of the network (decay_rate)."""
    balanced: bool = False
    """L_bce as the mean of the embeddings' mean and the outliers' mean."""
    snapshots: tuple[int, ...] = ()
    """Epochs at whose end some embeddings, boundary embeddings and outliers are kept in the training record."""


def logit_norm(logits: Tensor, labels: Tensor, T: float) -> Tensor:
    """Cross-entropy of logits brought to length 1 and divided by T (Wei et al., ICML 2022). (B, K), (B,) -> scalar."""
    return functional.cross_entropy(functional.normalize(logits, dim=1, eps=1e-7) / T, labels)


class NPOSClip(npos.NPOS):
    """See the module's docstring."""

    def check(self, recipe: Recipe) -> None:
        """As from scratch. Raises OODError also where outputs of frozen blocks are to be augmented or held out."""
        super().check(recipe)
        if recipe.frozen_blocks and (recipe.augment or recipe.validation or recipe.views > 1):
            raise OODError("frozen_blocks: their output is computed once for each image as it is; leave out "
                           "augment, views and validation, or frozen_blocks")

    def setup(self, network: nn.Module, sizes: Sizes) -> None:
        if not hasattr(network, "tail"):
            raise OODError("method npos_clip trains the tail of a CLIP image tower (model clip_vit); this network has "
                           "none, take method npos")
        self.sizes, options = sizes, self.options
        self.register_buffer("broken", torch.zeros((), dtype=torch.int64))
        self.classes = network.head.out_features
        if options.weight:
            width = network.head.in_features
            self.phi = npos.two_layers(width, options.hidden, 1)
            self.queues = npos.Queues(self.classes, options.queue, width)
            self.snapshots = npos.Snapshots(options.snapshots, options, self.classes, width)
        network.requires_grad_(False)
        for parameter in network.tail():
            parameter.requires_grad_()

    def parameter_groups(self, network: nn.Module) -> list[dict[str, Any]]:
        groups = [{"params": network.tail()}]
        if self.options.weight:
            lr = self.options.phi_lr * self.recipe.training.lr
            groups.append({"params": list(self.phi.parameters()), "lr": lr})
        return groups

    def begin(self, network: nn.Module, eval_data: EvalData) -> None:
        """Raises OODError for a class whose queue is not full before the training ends."""
        self.check_queues(torch.bincount(eval_data.labels, minlength=self.classes))

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        options = self.options
        features = network.features(batch.images)
        self.stop_if_broken(features.detach(), batch)
        logits = network.head(features)
        loss = logit_norm(logits, batch.labels, options.T)
        if options.weight:
            outliers = self.synthesise(features.detach(), batch)
            if outliers is not None:
                loss = loss + options.weight * npos.open_risk(self.phi(features), self.phi(outliers), options.balanced)
        return loss, logits

    def finish(self, network: nn.Module, eval_data: EvalData) -> None:
        """Nothing: the head is that of the texts."""

    def predict(self, network: nn.Module, x: Tensor) -> Tensor:
        return network(x)

    def record(self) -> dict[str, Tensor]:
        """What :class:`workflow_scripts.methods.npos.Snapshots` kept."""
        return self.snapshots.record() if self.options.weight else {}


def build(options: Options, released: tuple[str, ...]) -> NPOSClip:
    return NPOSClip(options, released)
