"""Learning rates as plain functions of the step."""

from __future__ import annotations

import math
from typing import Any


def learning_rate(base: float, schedule: dict[str, Any], step: int, steps_per_epoch: int, epochs: int) -> float:
    """Learning rate of a step.

    Args:
        base: ``training.lr``.
        schedule: ``training.schedule``: name, milestones, gamma, floor.
        step: 0-based, over the whole run.
        steps_per_epoch, epochs: size of the run.

    ``cosine``: from ``base`` to ``floor * base`` over all steps. ``multistep``: times ``gamma`` from the epoch after
    each milestone on (milestone 50: the first 50 epochs run at ``base``).
    """
    if schedule["name"] == "cosine":
        progress = step / max(1, steps_per_epoch * epochs)
        return base * (schedule["floor"] + (1 - schedule["floor"]) * 0.5 * (1 + math.cos(math.pi * progress)))
    if schedule["name"] == "multistep":
        epoch = step // steps_per_epoch
        return base * schedule["gamma"] ** sum(epoch >= m for m in schedule["milestones"])
    return base
