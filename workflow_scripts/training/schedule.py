"""Learning rates as plain functions of the step."""

from __future__ import annotations

import math
from collections.abc import Sequence

from workflow_scripts.core.optimisation import Schedule

# BiT's hyper-rule (Kolesnikov et al., ECCV 2020; dfb 2e): below this many train images, these milestones in steps.
_RULE = ((3_000, (100, 200, 300, 400, 500)), (500_000, (500, 3_000, 6_000, 9_000, 10_000)),
         (math.inf, (500, 6_000, 12_000, 18_000, 20_000)))


def bit_steps(images: int) -> tuple[int, ...]:
    """BiT's rule: end of the warm-up, steps after which the rate is divided by ten, end of the training."""
    return next(steps for below, steps in _RULE if images < below)


def bit_rate(base: float, steps: Sequence[int], step: int) -> float | None:
    """Rising from 0 to ``base``, then a tenth for each milestone that is strictly passed; ``None`` from the end on."""
    if step >= steps[-1]:
        return None
    if step < steps[0]:
        return base * step / steps[0]
    return base / 10 ** sum(step > milestone for milestone in steps[1:-1])


def resolved(schedule: Schedule, images: int) -> Schedule:
    """The schedule with what its rule takes from the number of train images."""
    if schedule.name != "bit" or schedule.steps:
        return schedule
    return schedule.model_copy(update={"steps": list(bit_steps(images))})


def learning_rate(base: float, schedule: Schedule, step: int, steps_per_epoch: int, epochs: int,
                  zero_based: bool = False) -> float:
    """Learning rate of a step.

    Args:
        base: ``training.lr``.
        schedule: ``training.schedule``; for ``bit`` with its steps (:func:`resolved`).
        step: 0-based, over the whole run.
        steps_per_epoch, epochs: size of the run.
        zero_based: npos.B13.

    ``cosine``: from ``base`` to ``floor * base`` over all steps; ``cosine_epochs``: the same in steps of an epoch.
    ``multistep``: times ``gamma`` from the epoch after each milestone on (milestone 50: the first 50 epochs run at
    ``base``). ``bit``: :func:`bit_rate`. ``warmup``: over its ``epochs``, linearly from ``start * base`` to what the
    schedule has behind them; with npos.B13 the line ends an epoch later and so begins below ``start * base``, for the
    papers' values below 0.
    """
    warmup = schedule.warmup
    if warmup and step < (warmup.epochs + zero_based) * steps_per_epoch:
        share = step / (warmup.epochs * steps_per_epoch) - zero_based / warmup.epochs
        behind = warmup.epochs * steps_per_epoch
        after = learning_rate(base, schedule.model_copy(update={"warmup": None}), behind, steps_per_epoch, epochs)
        return warmup.start * base + share * (after - warmup.start * base)
    if schedule.name == "cosine_epochs":
        step -= step % steps_per_epoch
    if schedule.name in ("cosine", "cosine_epochs"):
        progress = step / max(1, steps_per_epoch * epochs)
        return base * (schedule.floor + (1 - schedule.floor) * 0.5 * (1 + math.cos(math.pi * progress)))
    if schedule.name == "multistep":
        epoch = step // steps_per_epoch
        return base * schedule.gamma ** sum(epoch >= m for m in schedule.milestones)
    if schedule.name == "bit":
        return bit_rate(base, schedule.steps, step) or 0.0
    return base
