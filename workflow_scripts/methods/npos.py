"""Non-parametric outlier synthesis, NPOS (Tao, Du, Zhu, Li, ICLR 2023), from scratch; without outliers it is CIDER.

    L = w_disp L_disp + w_comp L_comp + weight L_bce

over all views of the batch's images. A projection head maps the penultimate features h to the unit sphere (without one
they are brought to length 1), where dispersion and compactness shape them around prototypes
(:mod:`workflow_scripts.methods.prototypes`). From epoch ``start`` on, once each class's queue is full, outliers are
synthesised near the rim of each class (:mod:`workflow_scripts.methods.synthesis`), and a small network phi learns to
tell them from the features:
L_bce = BCE(phi(h), 1) and BCE(phi(outlier), 0), in one mean. Projection head, phi, queues and prototypes serve the
training alone; images are scored by the K-th neighbour distance of h. The network's own head is fitted afterwards on
frozen features (:mod:`workflow_scripts.methods.probe`).

Numbers of the released scripts and what they do: docs/npos.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn
from torch.nn import functional

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.specs import MethodSpec
from workflow_scripts.methods import probe, prototypes
from workflow_scripts.methods.base import Batch, EvalData, Method, Sizes, train_only
from workflow_scripts.methods.recipe import Recipe
from workflow_scripts.methods.synthesis import Found, Queues, Synthesis
from workflow_scripts.models.base import eval_mode

SPEC = MethodSpec(
    bank=("queue", "K", "select", "pick"),
    defects={
        "npos.B1": "the embedding queue is emptied at every epoch while its fill counters go on",
        "npos.B2": "rejection sampling maps distances back to candidates by a wrong index",
        "npos.B5": "the smaller learning rate of the outlier head is overwritten by the schedule",
        "npos.B7": "CIFAR-10 is normalised with another standard deviation in evaluation than in training",
        "npos.B11": "ImageNet-100 from scratch: the outliers' loss is computed and never added",
        "npos.B12": "prototypes start from the test set",
        "npos.B13": "the first epoch of the warm-up has a negative learning rate",
    },
    reads_test="npos.B12",
    normalise=(
        ("npos.B7", {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2471, 0.2435, 0.2616)},
         {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.2010)}),
    ),
    probe=True,
    late_from="start",
    late={"weight": 0.1, "K": 1, "select": 1, "pick": 1, "sample_from": 1, "keep": 1, "sigma": 0.1, "hidden": 1,
          "phi_lr": 0.1, "balanced": False, "snapshots": ()},
    late_defects=("npos.B1", "npos.B2", "npos.B5", "npos.B7"),
    never_late=("weight", "npos.B11"),
    gathered=("queue",),
    carried=("head.", "prototypes", "broken", "queues."),
)
SHOWN = 1000  # features of a snapshot


@dataclass(frozen=True)
class Options:
    start: Annotated[int, Ge(0)] = 200
    """Epochs before outliers are synthesised (start_epoch_KNN)."""
    queue: Annotated[int, Gt(0)] = 1000
    """Features kept per class, N (sample_number)."""
    K: Annotated[int, Gt(0)] = 300
    """Which neighbour's distance says how far out a feature is; the feature itself is the first."""
    select: Annotated[int, Gt(0)] = 200
    """Size of a class's boundary: its farthest features."""
    pick: Annotated[int, Gt(0)] = 2
    """Boundary features drawn per class and step (pick_nums)."""
    sample_from: Annotated[int, Gt(0)] = 600
    """Candidates around each of them."""
    keep: Annotated[int, Gt(0)] = 200
    """Candidates kept of each of them (ID_points_num)."""
    sigma: Annotated[float, Gt(0)] = 0.1
    """Standard deviation of the noise, in feature units (the release's cov_mat)."""
    weight: Annotated[float, Ge(0)] = 0.1
    """Weight of the outliers' loss (loss_weight); 0: no outliers, which is CIDER."""
    w_disp: Annotated[float, Ge(0)] = 0.5
    """Weight of dispersion."""
    w_comp: Annotated[float, Ge(0)] = 1.0
    """Weight of compactness."""
    temperature: Annotated[float, Gt(0)] = 0.1
    """tau of both."""
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.95
    """Of the prototypes (proto_m); 0.5 for CIFAR-100."""
    projection: Annotated[int, Gt(0)] | None = 128
    """Size of the projections (feat_dim); none: there is no projection head, and the losses see the features
    themselves, brought to length 1."""
    hidden: Annotated[int, Gt(0)] = 128
    """Hidden units of phi."""
    phi_lr: Annotated[float, Gt(0)] = 0.1
    """Learning rate of phi over that of the network (decay_rate)."""
    balanced: bool = False
    """L_bce as the mean of the features' mean and the outliers' mean, however many there are of each."""
    train: tuple[str, ...] = ()
    """Prefixes of the network's tensors that are trained, e.g. [layer4]; none: all of them."""
    snapshots: tuple[int, ...] = ()
    """Epochs at whose end some features, boundary features and outliers are kept in the training record."""


def two_layers(width: int, hidden: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, out))


def open_risk(id_logits: Tensor, ood_logits: Tensor, balanced: bool = False) -> Tensor:
    """Binary cross-entropy with logits, ID features = 1, outliers = 0. (B, 1), (M, 1) -> scalar."""
    losses = functional.softplus(-id_logits), functional.softplus(ood_logits)
    return sum(part.mean() for part in losses) / 2 if balanced else torch.cat(losses).mean()


class NPOS(Method):
    """See the module's docstring."""

    def __init__(self, options: Options, released: tuple[str, ...]):
        super().__init__()
        if "npos.B11" in released:
            options = replace(options, weight=0.0)
        self.options, self.released = options, released
        self.rule = Synthesis(options.K, options.select, options.pick, options.sample_from, options.keep,
                              options.sigma, zeros_win="npos.B1" in released, misplaced="npos.B2" in released)

    def check(self, recipe: Recipe) -> None:
        """Refuse sizes larger than what they are taken from, and a start after the end.

        Raises:
            OODError: naming the option.
        """
        self.recipe, options = recipe, self.options
        if not options.weight:
            return
        for small, large, what in (("K", "queue", "the features of a queue"), ("select", "queue", "them"),
                                   ("pick", "select", "the boundary"), ("keep", "sample_from", "the candidates")):
            if getattr(options, small) > getattr(options, large):
                raise OODError(f"options.{small}: {getattr(options, small)} is more than options.{large} "
                               f"({getattr(options, large)}), {what} it is taken from; lower it")
        if options.start >= recipe.training.epochs:
            raise OODError(f"options.start: outliers come after epoch {options.start}, but training.epochs is "
                           f"{recipe.training.epochs}; lower it, or set weight: 0 to train without outliers")

    def setup(self, network: nn.Module, sizes: Sizes) -> None:
        options, self.sizes = self.options, sizes
        classes, width = network.head.out_features, network.head.in_features
        self.head = two_layers(width, width, options.projection) if options.projection else nn.Identity()
        self.register_buffer("prototypes", torch.zeros(classes, options.projection or width))
        self.register_buffer("broken", torch.zeros((), dtype=torch.int64))
        if options.weight:
            self.phi = two_layers(width, options.hidden, 1)
            self.queues = Queues(classes, options.queue, width)
            self.snapshots = Snapshots(options.snapshots, options, classes, width)
        train_only(network, options.train)

    def parameter_groups(self, network: nn.Module) -> list[dict[str, Any]]:
        groups = [{"params": [p for p in network.parameters() if p.requires_grad] + list(self.head.parameters())}]
        if self.options.weight:
            share = 1.0 if "npos.B5" in self.released else self.options.phi_lr
            groups.append({"params": list(self.phi.parameters()), "lr": share * self.recipe.training.lr})
        return groups

    def begin(self, network: nn.Module, eval_data: EvalData) -> None:
        """Prototypes: the class means of the untrained projections.

        Raises:
            OODError: a class without train images, or whose queue is not full before the training ends.
        """
        classes = len(self.prototypes)
        counts = torch.bincount(eval_data.labels, minlength=classes)
        if not counts.all():
            raise OODError(f"class {int(counts.argmin())} (counted from 0) has no train image "
                           f"({int((counts == 0).sum())} of {classes} classes have none); each needs a prototype")
        self.check_queues(counts)
        batches = eval_data.test() if "npos.B12" in self.released else eval_data.train()
        with eval_mode(network):
            pairs = [(self.project(network.features(x)), labels) for x, labels in batches]
        z, labels = (torch.cat(column) for column in zip(*pairs, strict=True))
        self.prototypes.copy_(prototypes.class_directions(z, labels, classes))

    def check_queues(self, counts: Tensor) -> None:
        """Raises OODError naming a class whose queue is not full before the training ends. counts: (C,) int64."""
        rare, views = max(1, int(counts.min())), self.recipe.views
        epochs = -(-self.options.queue // (rare * views))
        if self.options.weight and epochs >= self.recipe.training.epochs:
            raise OODError(f"options.queue: class {int(counts.argmin())} (counted from 0) has {rare} train images in "
                           f"{views} view(s), so that its queue of {self.options.queue} is full after {epochs} epochs, "
                           f"but training.epochs is {self.recipe.training.epochs}: no outlier would ever be "
                           "synthesised; shorten the queue or train longer")

    def start_epoch(self, network: nn.Module, epoch: int) -> None:
        network.train()
        if self.options.weight and "npos.B1" in self.released:
            self.queues.reset()

    def project(self, features: Tensor) -> Tensor:
        """Unit projections. (B, D) -> (B, d)."""
        return functional.normalize(self.head(features), dim=1)

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        options = self.options
        images, labels = batch.images, batch.labels
        if batch.second is not None:
            images, labels = torch.cat((images, batch.second)), torch.cat((labels, labels))
        features = network.features(images)
        self.stop_if_broken(features.detach(), batch)
        z = self.project(features)
        moved = prototypes.follow(self.prototypes.clone(), z, self.seen(batch), options.momentum)
        with torch.no_grad():
            self.prototypes.copy_(moved)
        loss = options.w_disp * prototypes.dispersion(moved, options.temperature)
        loss = loss + options.w_comp * prototypes.compactness(z, moved.detach(), labels, options.temperature)
        if options.weight:
            outliers = self.synthesise(features.detach(), batch)
            if outliers is not None:
                loss = loss + options.weight * open_risk(self.phi(features), self.phi(outliers), options.balanced)
        return loss, z[:len(batch.labels)].detach() @ moved.detach().T

    def seen(self, batch: Batch) -> Tensor:
        """Labels of all views on the CPU. -> (B,) or (2B,)."""
        labels = batch.on_host()
        return labels if batch.second is None else torch.cat((labels, labels))

    def synthesise(self, features: Tensor, batch: Batch) -> Tensor | None:
        """Queue the features (B, D) of all views; outliers (C P m, D) where it is time."""
        self.queues.push(features, self.seen(batch))
        if batch.epoch < self.options.start or not self.queues.full():
            return None
        generator = torch.Generator().manual_seed(
            ((batch.seed * 1_000_003 + batch.epoch) * 1_000_003 + batch.step) & (2**63 - 1))
        found = self.rule(self.queues, *self.rule.draw(self.queues, generator))
        if batch.epoch + 1 in self.options.snapshots and batch.step + 1 == self.sizes.steps:
            self.snapshots.take(batch.epoch + 1, self.queues, found)
        return found.outliers.flatten(0, 2).to(features.dtype)

    def stop_if_broken(self, features: Tensor, batch: Batch) -> None:
        """Note features that are not finite, and end the run; a GPU would have to wait, and ends it with the epoch."""
        step = batch.epoch * self.sizes.steps + batch.step + 1
        self.broken += step * ((self.broken == 0) & ~features.isfinite().all())
        if not features.is_cuda:
            self._stop(batch.epoch)

    def end_epoch(self, network: nn.Module, epoch: int) -> None:
        """Raises OODError when features were not finite."""
        self._stop(epoch)

    def _stop(self, epoch: int) -> None:
        if self.broken:
            raise OODError(f"features are not finite in step {int(self.broken)} (epoch {epoch + 1}); lower "
                           "training.lr or look at the train images")

    def finish(self, network: nn.Module, eval_data: EvalData) -> None:
        """Fit the network's head on its features."""
        share = probe.fit_head(network, eval_data.train())
        print(f"linear probe: {share:.4f} of the train images are classified correctly", flush=True)

    def predict(self, network: nn.Module, x: Tensor) -> Tensor:
        """By the nearest prototype."""
        return self.project(network.features(x)) @ self.prototypes.T

    def record(self) -> dict[str, Tensor]:
        """``prototypes`` (C, d), and what :class:`Snapshots` kept."""
        kept = self.snapshots.record() if self.options.weight else {}
        return {"prototypes": self.prototypes, **kept}


class Snapshots(nn.Module):
    """Of some epochs: queued features, boundary features and outliers, ``SHOWN`` of each at most, evenly spaced.

    Records, below ``snapshot_{epoch}/``: ``features`` (n, D), their ``labels`` and K-th neighbour ``distances``;
    ``centres`` (C P, D); ``outliers`` (m, D) and their ``outlier_distances``.
    """

    def __init__(self, epochs: tuple[int, ...], options: Options, classes: int, width: int):
        super().__init__()
        self.epochs = epochs
        queued = min(SHOWN, classes * options.queue)
        kept = min(SHOWN, classes * options.pick * options.keep)
        shapes = {"features": (queued, width), "distances": (queued,), "centres": (classes * options.pick, width),
                  "outliers": (kept, width), "outlier_distances": (kept,)}
        for epoch in epochs:
            for name, shape in shapes.items():
                self.register_buffer(f"{name}_{epoch}", torch.zeros(shape))
            self.register_buffer(f"labels_{epoch}", torch.full((queued,), -1))

    def take(self, epoch: int, queues: Queues, found: Found) -> None:
        """Keep a step's."""
        classes, length = queues.norm.shape
        which = torch.arange(classes, device=queues.norm.device)[:, None]
        rows = self._spaced(classes * length, queues.norm.device)
        kept = self._spaced(found.distances.numel(), queues.norm.device)
        label, slot = rows // length, rows % length
        for name, value in {
            "features": queues.unit[label, slot] * queues.norm[label, slot, None], "labels": label,
            "distances": found.queued[label, slot], "outliers": found.outliers.flatten(0, 2)[kept],
            "centres": (queues.unit * queues.norm[..., None])[which, found.centres].flatten(0, 1),
            "outlier_distances": found.distances.flatten()[kept],
        }.items():
            getattr(self, f"{name}_{epoch}").copy_(value)

    @staticmethod
    def _spaced(count: int, device: torch.device) -> Tensor:
        return torch.arange(min(SHOWN, count), device=device) * count // min(SHOWN, count)

    def record(self) -> dict[str, Tensor]:
        taken = [epoch for epoch in self.epochs if (getattr(self, f"labels_{epoch}") >= 0).all()]
        return {f"snapshot_{epoch}/{name}": getattr(self, f"{name}_{epoch}") for epoch in taken
                for name in ("features", "labels", "distances", "centres", "outliers", "outlier_distances")}


def build(options: Options, released: tuple[str, ...]) -> NPOS:
    return NPOS(options, released)
