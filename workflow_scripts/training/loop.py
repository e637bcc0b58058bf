"""The training loop: shuffled ID images (and outliers beside them), one method's loss, SGD or Adam."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from workflow_scripts.core.changes import Normalise
from workflow_scripts.core.errors import OODError
from workflow_scripts.data.images.augment import augment_masks, resize_masks
from workflow_scripts.data.images.randomness import permutation
from workflow_scripts.methods.base import Batch, EvalData, Method, Sizes
from workflow_scripts.methods.recipe import Recipe
from workflow_scripts.models.base import eval_mode
from workflow_scripts.training.images import Images
from workflow_scripts.training.layout import channels_last
from workflow_scripts.training.outliers import Outliers
from workflow_scripts.training.ranks import ALONE, Ranks, shared
from workflow_scripts.training.resume import Resume
from workflow_scripts.training.schedule import learning_rate, resolved
from workflow_scripts.training.segmentation import segmentation
from workflow_scripts.training.validation import accuracy, hold_out

SECOND_VIEW = 1 << 32  # added to the seed of a view's augmentation
EVAL_BATCH = 256  # images at once of a pass in eval mode


def batches(data: Images, recipe: Recipe, seed: int, epoch: int, rows: Tensor | None = None,
            outliers: Outliers | None = None, start: int = 0, order: Tensor | None = None) -> Iterator[Batch]:
    """The epoch's batches: shuffled, augmented, normalised; a function of (seed, epoch) alone.

    Args:
        rows: numbers of the images to train on; ``None``: all.
        outliers: give each batch its outliers; the ID images alone decide when the epoch ends.
        start: steps of the epoch that are left out, since they are done.
        order: numbers of the outliers in the order of their use; ``None``: as the recipe says.
    """
    training = recipe.training
    rows = torch.arange(len(data.labels)) if rows is None else rows
    count, size = len(rows), training.batch_size
    whole = count // size * size if training.drop_last else count
    parts = rows[permutation(seed, epoch, count)][:whole].split(size)
    beside = outliers.batches(recipe, epoch, start, order, len(parts)) if outliers else None
    parts = parts[start:]
    views = [data.batches(parts, recipe.augment, seed + SECOND_VIEW * view, epoch)
             for view in range(recipe.views)]
    for step, (part, *seen) in enumerate(zip(parts, *views, strict=True), start):
        index = seen[0][0]
        images = [data.inputs(view, recipe.normalise) for _, view in seen]
        ood, numbers = next(beside) if beside else (None, None)
        masks = None
        if data.masks is not None:
            masks = resize_masks(data.masks[index], *data.pixels.shape[1:3])
            masks = augment_masks(masks, recipe.augment, seed, epoch, index).long()
        yield Batch(images[0], data.labels[index], index, seed, epoch, step, ood, numbers, *images[1:], masks=masks,
                    host_labels=data.host_labels[part])


def plain(data: Images, rows: Tensor | None, how: Normalise) -> Iterator[tuple[Tensor, Tensor]]:
    """(inputs, labels) of these images in order, not augmented; ``rows``: ``None`` for all, ``how``: `normalise`."""
    rows = torch.arange(len(data.labels)) if rows is None else rows
    for part in rows.to(data.labels.device).split(EVAL_BATCH):
        yield data.inputs(data.pixels[part], how), data.labels[part]


class Training:
    """One network in training: everything that changes while it runs.

    Args:
        network: on the device of ``data``; trained in place.
        method: gives the loss of a step.
        data: ID train images.
        recipe: how it is trained.
        seed: of shuffling and augmentation.
        outliers: images that ``method`` trains with, if it does.
        released: defects to reproduce; the loop itself has goe.2g-4, npos.B13 and npos.B14.
        test: ID test images, for a method whose defect reads them.
        ranks: the processes that train it together, each on its share of every batch.
        fused: on a GPU all weights are changed by one kernel.

    Raises:
        OODError: the train set is smaller than a batch that may not be dropped, or a batch than the ranks, or the
            method lacks its outliers or does not fit the recipe.
    """

    def __init__(self, network: nn.Module, method: Method, data: Images, recipe: Recipe, seed: int,
                 outliers: Outliers | None = None, released: tuple[str, ...] = (), test: Images | None = None,
                 ranks: Ranks = ALONE, fused: bool = True):
        network = shared(network, ranks)
        self.ranks, self.network, self.method, self.data = ranks, network, method, data
        self.recipe, self.seed = recipe, seed
        self.outliers, self.released = outliers if method.outliers else None, released
        training, device = recipe.training, data.labels.device
        self.test = test
        self.rows, held = hold_out(recipe.validation, len(data.labels))
        self.held = held.to(device)
        size = training.batch_size
        self.schedule, self.zero_based = resolved(training.schedule, len(self.rows)), "npos.B13" in released
        if "npos.B14" in released:
            self.schedule = self.schedule.model_copy(update={"gamma": 1 / self.schedule.gamma})
        self.end = self.schedule.steps[-1] if self.schedule.name == "bit" else None
        self.per_epoch = len(self.rows) // size if training.drop_last else -(-len(self.rows) // size)
        if size < ranks.count:
            raise OODError(f"training.batch_size: {size} images cannot be shared by {ranks.count} GPUs or processes; "
                           "lower gpus")
        if not self.per_epoch:
            raise OODError(f"training.batch_size: {size} is more than the {len(self.rows)} train images, "
                           "and training.drop_last drops the only batch")
        self.epochs = training.epochs if self.end is None else -(-self.end // self.per_epoch)
        if method.outliers and outliers is None:
            raise OODError("outliers: this method trains with outliers, but the recipe names none")
        method.check(recipe)
        channels_last(network)
        method.setup(network, Sizes(
            seed, self.epochs, self.per_epoch, len(data.labels), device,
            *((self.outliers.total, self.outliers.batch_size) if self.outliers else ())))
        method.to(device)
        groups = method.parameter_groups(network)
        decay = training.weight_decay
        self.fused = True if fused and device.type == "cuda" else None  # None: as torch chooses
        self.optimiser = (
            torch.optim.Adam(groups, training.lr, weight_decay=decay, fused=self.fused)
            if training.optimiser == "adam" else
            torch.optim.SGD(groups, training.lr, training.momentum, weight_decay=decay, nesterov=training.nesterov,
                            fused=self.fused))
        self.bases = [group["lr"] for group in self.optimiser.param_groups]
        self.best = _Best(recipe.keep == "best", len(held))
        self.history: list[dict[str, float]] = []
        self.epoch = self.step = self.done = self.seen = 0
        self.total, self.correct = torch.zeros((), device=device), torch.zeros((), device=device)

    def run(self, steps: int | None = None, report: Callable[[str], None] = print,
            resume: Resume | None = None, start: dict[str, Any] | None = None,
            carried: tuple[str, ...] = ()) -> list[dict[str, float]]:
        """Train to the end, from the beginning or from where an interrupted run stopped.

        Args:
            steps: stop after so many (``limit.steps``); ``None``: all epochs.
            report: receives a line per epoch.
            resume: keeps the progress; on CPU the result is that of an uninterrupted run, to the bit.
            start: the first epochs, which another run trained (:meth:`start`); ``None``: none.
            carried: prefixes of the method's own tensors that come from there (``MethodSpec.carried``).

        Returns:
            Per epoch: epoch, loss (mean over images), accuracy (running, in the method's mode), lr, and where images
            are held out validation (accuracy). The network has the last epoch's weights, or with ``keep: best`` those
            of the first epoch with the best validation.

        Raises:
            OODError: the loss is not finite; the run was told to stop.
        """
        steps = min(filter(None, (steps, self.end)), default=None)
        self._train(self.epochs, steps, report, resume, start, carried)
        self.best.restore(self.network)
        self.method.finish(self.network, self.eval_data())
        return self.history

    def start(self, epochs: int, report: Callable[[str], None] = print,
              resume: Resume | None = None) -> dict[str, Any]:
        """Train the first epochs alone.

        Returns:
            What :meth:`run` goes on from, as tensors and plain values; also one with another method, whose first epochs
            are the same.

        Raises:
            OODError: as :meth:`run`; the network draws random numbers in training, whose state no other run has.
        """
        before = self._random()
        self._train(epochs, None, report, resume)
        if not all(map(torch.equal, before, self._random())):
            raise OODError("the network draws random numbers in training, so that no two trainings share their first "
                           "epochs; its module needs SPEC = ModelSpec(draws=('always',))")
        moments = self.optimiser.state
        return {"epoch": self.epoch, "done": self.done, "history": self.history, "training": self.network.training,
                "network": self.network.state_dict(), "method": self.method.state_dict(),
                "moments": {name: moments[p] for name, p in self._parameters() if p in moments},
                "best": {"value": self.best.value, "state": self.best.state}}

    def _go_on(self, start: dict[str, Any], carried: tuple[str, ...]) -> None:
        """Continue from :meth:`start`."""
        self.epoch, self.done = start["epoch"], start["done"]
        self.history = start["history"]
        self.network.load_state_dict(start["network"])
        self.network.train(start["training"])
        self.method.load_state_dict({name: start["method"][name] if name.startswith(carried) else tensor
                                     for name, tensor in self.method.state_dict().items()})
        for name, parameter in self._parameters():
            if name in start["moments"]:
                # the number of steps is one number, which torch wants on the device where the kernel is fused
                self.optimiser.state[parameter] = {
                    key: value.to(parameter.device) if value.ndim or self.fused else value
                    for key, value in start["moments"][name].items()}
        self.best.value = start["best"]["value"]
        self.best.state = {name: tensor.to(self.total.device) for name, tensor in start["best"]["state"].items()}

    def _random(self) -> list[Tensor]:
        """States of the generators that a network may draw from."""
        device = self.total.device
        return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]

    def _parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What is optimised, by name."""
        for where, module in (("network", self.network), ("method", self.method)):
            for name, parameter in module.named_parameters():
                yield f"{where}.{name}", parameter

    def _train(self, epochs: int, steps: int | None, report: Callable[[str], None], resume: Resume | None,
               start: dict[str, Any] | None = None, carried: tuple[str, ...] = ()) -> None:
        """The steps up to an epoch, from where the run is found."""
        progress = resume.load() if resume else None
        if progress:
            self.restore(progress)
        elif start:
            self._go_on(start, carried)
        else:
            self.method.begin(self.network, self.eval_data())
        while self.epoch < epochs and (steps is None or self.done < steps):
            if not self.step:
                self.ranks.same(self.method.state_dict().values())
                self.method.start_epoch(self.network, self.epoch)
                if not self.epoch:
                    self.check_last_batch(steps)
            started, before = time.perf_counter(), self.seen
            for batch in batches(self.data, self.recipe, self.seed, self.epoch, self.rows, self.outliers, self.step,
                                 self.method.order):
                self._step(batch)
                if self.done == steps:
                    break
                if resume and self.step < self.per_epoch and resume.due():
                    resume.save(self.progress())
            self._end_epoch(report, (self.seen - before) / (time.perf_counter() - started))
            if resume and self.epoch < epochs and self.done != steps and resume.due():
                resume.save(self.progress())

    def eval_data(self) -> EvalData:
        """What a method may read before and after its training."""
        how = self.recipe.normalise
        return EvalData(self.data.labels[self.rows.to(self.data.labels.device)],
                     lambda: plain(self.data, self.rows, how), lambda: plain(self.test, None, how))

    def check_last_batch(self, steps: int | None) -> None:
        """Refuse a batch of one image where a batch norm would have one value per channel, of which there is no spread.

        Args:
            steps: of the run, which may end before that batch.

        Raises:
            OODError: naming the batch norm.
        """
        size, count = self.recipe.training.batch_size, len(self.rows)
        one = size == 1 or (count % size == 1 and not self.recipe.training.drop_last)
        alone = self.outliers is None and self.recipe.views == 1
        trained = [(name, module) for name, module in self.network.named_modules()
                   if isinstance(module, _BatchNorm) and module.training]
        if not (one and alone and trained) or (steps is not None and steps < self.per_epoch):
            return
        single: list[str] = []

        def note(name: str, _: nn.Module, given: tuple[Tensor]) -> None:
            if given[0].numel() == given[0].shape[1]:
                single.append(name)

        hooks = [module.register_forward_pre_hook(partial(note, name)) for name, module in trained]
        last = next(batches(self.data, self.recipe, self.seed, 0, self.rows, start=self.per_epoch - 1))
        with eval_mode(self.network):
            self.network(last.images)
        for hook in hooks:
            hook.remove()
        if single:
            found = "it is 1" if size == 1 else f"{count} train images in batches of {size} leave one for the last"
            drop = "" if size == 1 else "training.drop_last: true, or "
            raise OODError(f"training.batch_size: {found}, and batch norm '{single[0]}' has a single value per channel "
                           f"of one image, hence no variance; set {drop}another batch_size")

    def _step(self, batch: Batch) -> None:
        for group, base in zip(self.optimiser.param_groups, self.bases, strict=True):
            if not group.get("constant"):
                group["lr"] = learning_rate(base, self.schedule, self.done, self.per_epoch, self.epochs,
                                            self.zero_based)
        loss, logits = self.method.loss(self.network, batch)
        self.optimiser.zero_grad(set_to_none=True)
        self.ranks.backward(loss, (p for group in self.optimiser.param_groups for p in group["params"]))
        self.optimiser.step()
        self.method.after_step(self.network, batch)
        self.total += loss.detach() * len(batch.labels)
        self.correct += (logits.detach().argmax(1) == batch.labels).sum()
        self.seen += len(batch.labels)
        self.done += 1
        self.step += 1

    def _end_epoch(self, report: Callable[[str], None], speed: float) -> None:
        mean, accurate = float(self.total) / self.seen, float(self.correct) / self.seen
        if not torch.isfinite(self.total):
            raise OODError(f"the loss is {mean} in epoch {self.epoch + 1} (step {self.done}); "
                           "lower training.lr or look at the train images")
        self.method.end_epoch(self.network, self.epoch)
        rate = learning_rate(self.recipe.training.lr, self.schedule, self.done - 1, self.per_epoch, self.epochs,
                             self.zero_based)
        self.history.append({"epoch": self.epoch + 1, "loss": mean, "accuracy": accurate, "lr": rate})
        line = f"epoch {self.epoch + 1}/{self.epochs}  loss {mean:.4f}  accuracy {accurate:.4f}  lr {rate:.4g}  "
        if len(self.held):
            augmented = (self.seed, self.epoch) if "goe.2g-4" in self.released else None
            value = accuracy(self.network, self.data, self.held, self.recipe, augmented,
                             self.method.predict)
            self.history[-1]["validation"] = value
            self.best.update(self.network, value)
            if self.data.masks is not None:
                self.history[-1] |= segmentation(self.network, self.data, self.held, self.recipe.normalise)
            line += f"validation {value:.4f}  "
        report(f"{line}{speed:.0f} images/s")
        self.epoch, self.step, self.seen = self.epoch + 1, 0, 0
        self.total.zero_()
        self.correct.zero_()

    def progress(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on, as tensors and plain values."""
        return {"epoch": self.epoch, "step": self.step, "done": self.done, "seen": self.seen, "total": self.total,
                "correct": self.correct, "history": self.history, "training": self.network.training,
                "network": self.network.state_dict(), "optimiser": self.optimiser.state_dict(),
                "method": self.method.state_dict(), "order": self.method.order,
                "best": {"value": self.best.value, "state": self.best.state},
                "random": torch.get_rng_state(),
                "random_cuda": torch.cuda.get_rng_state() if self.total.is_cuda else None}

    def restore(self, progress: dict[str, Any]) -> None:
        """Continue where :meth:`progress` was taken."""
        self.epoch, self.step, self.done, self.seen = (progress[key] for key in ("epoch", "step", "done", "seen"))
        self.history = progress["history"]
        self.total.copy_(progress["total"])
        self.correct.copy_(progress["correct"])
        self.network.load_state_dict(progress["network"])
        self.network.train(progress["training"])
        self.optimiser.load_state_dict(progress["optimiser"])
        self.method.load_state_dict(progress["method"])
        self.method.order = progress["order"]
        self.best.value = progress["best"]["value"]
        self.best.state = {name: tensor.to(self.total.device) for name, tensor in progress["best"]["state"].items()}
        torch.set_rng_state(progress["random"])
        if progress["random_cuda"] is not None and self.total.is_cuda:
            torch.cuda.set_rng_state(progress["random_cuda"])


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
