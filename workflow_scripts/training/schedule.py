"""Learning rates as plain functions of the step."""

from __future__ import annotations

import math
from typing import Any


def learning_rate(base: float, schedule: dict[str, Any], step: int, steps_per_epoch: int, epochs: int) -> float:
    """Learning rate of a step.

    Args:
        base: ``training.lr``.
        schedule: ``training.schedule``: name, milestones, gamma, floor, and where there is one ``warmup``;
            ``zero_based`` is npos.B13.
        step: 0-based, over the whole run.
        steps_per_epoch, epochs: size of the run.

    ``cosine``: from ``base`` to ``floor * base`` over all steps; ``cosine_epochs``: the same in steps of an epoch.
    ``multistep``: times ``gamma`` from the epoch after each milestone on (milestone 50: the first 50 epochs run at
    ``base``). ``warmup``: over its ``epochs``, linearly from ``start * base`` to what the schedule has behind them;
    with npos.B13 the line ends an epoch later and so begins below ``start * base``, for the papers' values below 0.
    """
    warmup = schedule.get("warmup")
    if warmup:
        late = bool(schedule.get("zero_based"))
        if step < (warmup["epochs"] + late) * steps_per_epoch:
            share = step / (warmup["epochs"] * steps_per_epoch) - late / warmup["epochs"]
            behind = warmup["epochs"] * steps_per_epoch
            after = learning_rate(base, schedule | {"warmup": None}, behind, steps_per_epoch, epochs)
            return warmup["start"] * base + share * (after - warmup["start"] * base)
    if schedule["name"] == "cosine_epochs":
        step -= step % steps_per_epoch
    if schedule["name"] in ("cosine", "cosine_epochs"):
        progress = step / max(1, steps_per_epoch * epochs)
        return base * (schedule["floor"] + (1 - schedule["floor"]) * 0.5 * (1 + math.cos(math.pi * progress)))
    if schedule["name"] == "multistep":
        epoch = step // steps_per_epoch
        return base * schedule["gamma"] ** sum(epoch >= m for m in schedule["milestones"])
    return base
