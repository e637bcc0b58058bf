"""Small trainings of every method, and several processes that run them together."""

from __future__ import annotations

import dataclasses
import multiprocessing
import signal
from pathlib import Path
from typing import Any

import torch

from tests import typed
from tests.models.test_clip import RECIPE as CLIP
from tests.models.test_clip import SMALL
from tests.training.test_training import RECIPE, images
from workflow_scripts.core.errors import OODError
from workflow_scripts.methods import (
    background,
    cross_entropy,
    dense,
    energy_oe,
    goe,
    ish,
    logitnorm,
    mixoe,
    mixup,
    npos,
    npos_clip,
    outlier_exposure,
    resample,
    rotpred,
    t2fnorm,
    vos,
)
from workflow_scripts.models import clip_vit, densenet_bc, resnet_cifar, resnet_gn, wide_resnet, wide_resnet_biased
from workflow_scripts.networks.load import in_bfloat16
from workflow_scripts.training import ranks as parallel
from workflow_scripts.training.loop import Images, Training
from workflow_scripts.training.outliers import Outliers
from workflow_scripts.training.resume import Resume

STEPS = 12
CPU = torch.device("cpu")
SYNTHESIS = {"start": 1, "queue": 20, "K": 5, "select": 8, "sample_from": 12, "keep": 3}
# Two features that are each other's K-th neighbour are equally far, and rounding says which is drawn: draw all.
ALL = SYNTHESIS | {"select": 20, "pick": 20}


def resnet():
    return resnet_cifar.build(resnet_cifar.Options(blocks=(1, 1, 1, 1), width=4), 3)


def wide():
    return wide_resnet.build(wide_resnet.Options(depth=10, widen=1, width=4), 3)


def biased():
    return wide_resnet_biased.build(wide_resnet_biased.Options(depth=10, widen=1, width=4), 3)


def group_norm(classes: int = 3):
    return resnet_gn.build(resnet_gn.Options(blocks=(1, 1), width=8, groups=4), classes)


def clip():
    network = clip_vit.build(clip_vit.Options(**SMALL), 3)
    torch.nn.init.normal_(network.fc.weight)
    return network


def masked() -> Images:
    """Pseudo-masks: the bright rows are the class, the rest background."""
    data = images()
    there = (data.pixels.float().mean(3) > 100).to(torch.uint8)
    return dataclasses.replace(data, masks=there * (data.labels + 1)[:, None, None].to(torch.uint8))


def coloured() -> Images:
    pixels = torch.randint(0, 255, (36, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Images(pixels, torch.arange(36) % 3)


CASES = {
    "cross_entropy": (resnet, lambda: cross_entropy.build(cross_entropy.Options(), ()), {}),
    "cross_entropy, GroupNorm": (group_norm, lambda: cross_entropy.build(cross_entropy.Options(), ()), {}),
    "cross_entropy beside outliers": (
        lambda: densenet_bc.build(densenet_bc.Options(depth=10, growth=4), 3),
        lambda: cross_entropy.build(cross_entropy.Options(), ("goe.2g-2",)), {}),
    "outlier_exposure, dropout": (wide, lambda: outlier_exposure.build(outlier_exposure.Options(), ()), {}),
    "energy_oe": (resnet, lambda: energy_oe.build(energy_oe.Options(m_in=-3, m_out=-1), ()), {}),
    "goe": (wide, lambda: goe.build(goe.Options(k=2), ()), {}),
    "goe, static": (resnet, lambda: goe.build(goe.Options(k=2, filter="static", divide="kept"), ()), {}),
    "background": (biased, lambda: background.build(background.Options(background_bn="train"), ()), {}),
    "resample": (biased, lambda: resample.build(resample.Options(), ()), {}),
    "resample, batch norm": (biased, lambda: resample.build(resample.Options(background_bn="train"), ()), {}),
    "vos": (resnet, lambda: vos.build(vos.Options(start=1, queue=20, sample_from=50), ()), {}),
    "npos": (resnet, lambda: npos.build(npos.Options(**ALL), ()), {"views": 2}),
    "npos as released": (resnet, lambda: npos.build(npos.Options(**SYNTHESIS), ("npos.B1", "npos.B2", "npos.B5")), {}),
    "CIDER": (resnet, lambda: npos.build(npos.Options(weight=0), ()), {"views": 2}),
    "npos_clip": (clip, lambda: npos_clip.build(npos_clip.Options(**CLIP["options"] | {"select": 10, "pick": 10}), ()),
                  {"normalise": CLIP["normalise"], "augment": [], "data": coloured,
                   "training": CLIP["training"] | {"epochs": 6}}),
    "logitnorm": (resnet, lambda: logitnorm.build(logitnorm.Options(1.0), ()), {}),
    "t2fnorm": (resnet, lambda: t2fnorm.build(t2fnorm.Options(), ()), {}),
    "ish": (resnet, lambda: ish.build(ish.Options(), ()), {}),
    "mixoe": (resnet, lambda: mixoe.build(mixoe.Options(), ()), {}),
    "rotpred": (resnet, lambda: rotpred.build(rotpred.Options(), ()), {}),
    "mixup": (resnet, lambda: mixup.build(mixup.Options(alpha=0.4), ()), {}),
    "dense": (lambda: group_norm(4), lambda: dense.build(dense.Options(mixup=0.3), ()),
              {"masks": True, "data": masked, "validation": {"count": 10, "seed": 0, "list": None}}),
}


def recipe(changes: dict[str, Any]) -> dict[str, Any]:
    """Batches of 15 of 86 to 96 images: shares that differ, and a last batch of another size."""
    training = RECIPE["training"] | {"batch_size": 15, "lr": 0.02, "epochs": 4}
    found = RECIPE | {"training": training, "validation": {"count": 11, "seed": 0, "list": None}, "keep": "best",
                      "outliers": {"batch_size": 9, "order": "shuffled"}}
    return found | {key: value for key, value in changes.items() if key != "data"}


class Exact(Images):
    """Images whose network inputs are in the precision of the test."""

    def inputs(self, images: torch.Tensor, how: Any) -> torch.Tensor:
        return super().inputs(images, how).to(torch.get_default_dtype())


def start(name: str, ranks: parallel.Ranks) -> tuple[Training, list[float]]:
    """A training in torch's default precision, and where its losses will be."""
    network, method, changes = CASES[name]
    torch.manual_seed(3)
    method, losses = method(), []
    pixels = torch.randint(0, 256, (40, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    outliers = Outliers(pixels, 9, "shuffled", 0, CPU, "pool")
    data = changes.get("data", images)()
    how = recipe(changes)
    if data.masks is not None and torch.get_default_dtype() == torch.float64:  # pseudo-masks are checked in single
        how |= {"validation": None, "keep": "last"}
    training = Training(network(), method, Exact(data.pixels, data.labels, data.masks), typed.recipe(how), 0, outliers,
                        ranks=ranks)
    loss = method.loss

    def recorded(network: torch.nn.Module, batch: Any) -> Any:
        if batch.outliers is not None:
            batch = dataclasses.replace(batch, outliers=batch.outliers.to(torch.get_default_dtype()))
        found = loss(network, batch)
        losses.append(float(found[0].detach()))
        return found

    method.loss = recorded
    return training, losses


def state(training: Training) -> dict[str, torch.Tensor]:
    """All that was learned, and what the optimiser remembers."""
    momenta = {f"momentum.{i}": state["momentum_buffer"].clone()
               for i, state in enumerate(training.optimiser.state.values())}
    method = {f"method.{key}": value.clone() for key, value in training.method.state_dict().items()}
    return {key: value.clone() for key, value in training.network.state_dict().items()} | method | momenta


def run(name: str, ranks: parallel.Ranks, resume: Resume | None = None, exact: bool = True, rounded: bool = False,
        ) -> dict[str, Any]:
    """Twelve steps in double precision, or in single precision (or bfloat16) with a small learning rate."""
    torch.set_default_dtype(torch.float64 if exact else torch.float32)
    try:
        training, losses = start(name, ranks)
        if rounded:
            in_bfloat16(training.network)
        if not exact:
            training.bases = [rate / 500 for rate in training.bases]
        history = training.run(STEPS, lambda line: None, resume)
    finally:
        torch.set_default_dtype(torch.float32)
    return {"losses": losses, "state": state(training), "history": history}


def together(work, folder: Path, *more: Any, count: int = 2) -> list[Any]:
    """What ``work(ranks, *more)`` gives in each of ``count`` processes."""
    context = multiprocessing.get_context("spawn")
    meeting = folder / f"meeting-{work.__name__}"
    members = [context.Process(target=_member, args=(work, str(meeting), rank, count, more)) for rank in range(count)]
    for member in members:
        member.start()
    for member in members:
        member.join(300)
        if member.exitcode:  # the others wait for it
            for other in members:
                other.kill()
    assert [member.exitcode for member in members] == [0] * count
    return [torch.load(f"{meeting}.{rank}", weights_only=True) for rank in range(count)]


def _member(work, meeting: str, rank: int, count: int, more: tuple) -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    ranks = parallel.join(meeting, rank, count, CPU)
    torch.save(work(ranks, *more), f"{meeting}.{rank}")
    ranks.leave()


def every_method(ranks: parallel.Ranks) -> dict[str, Any]:
    return {f"{name}, {exact}": run(name, ranks, exact=exact) for name in CASES for exact in (True, False)}


ROUNDED = ("cross_entropy", "goe", "resample, batch norm", "npos", "dense")


def in_half(ranks: parallel.Ranks) -> dict[str, Any]:
    """Trainings with `precision: bfloat16`."""
    return {name: run(name, ranks, exact=False, rounded=True) for name in ROUNDED}


def stopped_and_gone_on(ranks: parallel.Ranks, folder: str) -> dict[str, Any]:
    """Trainings that a signal to the second rank stops after their eighth step, and that then go on."""
    return {name: _stopped(name, ranks, Path(folder, f"{number}.pt")) for number, name in enumerate(STOPPED)}


STOPPED = ("resample, batch norm", "npos", "goe")


def _stopped(name: str, ranks: parallel.Ranks, out: Path) -> dict[str, Any]:
    whole = run(name, ranks, exact=False)
    resume = Resume(out, {}, 60, ranks)
    resume.catch_signals()
    step = Training._step

    def stepping(self: Training, batch: Any) -> None:
        step(self, batch)
        if self.done == 8 and ranks.rank == 1:
            signal.raise_signal(signal.SIGUSR1)

    Training._step = stepping
    said = ""
    try:
        run(name, ranks, resume, exact=False)
    except OODError as error:
        said = str(error)
    Training._step = step
    found = run(name, ranks, Resume(out, {}, 60, ranks), exact=False)
    same = all(torch.equal(found["state"][key], value) for key, value in whole["state"].items())
    return {"said": said, "steps": len(found["losses"]), "same": same and found["history"] == whole["history"]}
