"""The papers' own counting rules, to meet their printed numbers: the modules of ``metrics/rules`` by name.

The strict rules stand in ``ood`` and ``confidence``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workflow_scripts.core import plugins

Rule = Callable[[ArrayLike, ArrayLike], dict[str, float]]

_MODULES = {name: plugins.load("metrics.rules", module) for name, module in plugins.metric_rules().items()}
OOD_RULES: dict[str, Rule] = {name: module.ood for name, module in _MODULES.items()}
ID_RULES: dict[str, Rule] = {name: module.confidence for name, module in _MODULES.items()
                             if hasattr(module, "confidence")}
THRESHOLD_RULES: dict[str, Rule] = {name: module.thresholded for name, module in _MODULES.items()
                                    if hasattr(module, "thresholded")}
CONFIDENCES: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "score": lambda scores: scores, "exp": np.exp, "plus_one": lambda scores: 1 + scores}
"""From the values that a score writes to the confidence that releases threshold, by the names of
``ScoreSpec.confidence``."""


def by_rule(rule: str, id_scores: NDArray[np.float64], ood_scores: NDArray[np.float64],
            confidence: str = "") -> dict[str, float]:
    """All metrics of the OOD task by a rule; those at a threshold where the score has a ``confidence``."""
    found = OOD_RULES[rule](id_scores, ood_scores)
    if confidence and rule in THRESHOLD_RULES:
        known = CONFIDENCES[confidence]
        found |= THRESHOLD_RULES[rule](known(id_scores), known(ood_scores))
    return found


def ood_images(rule: str, id_count: int, ood_count: int) -> int:
    """How many OOD images stand behind one number of a rule."""
    counted = getattr(_MODULES[rule], "ood_images", None)
    return counted(id_count, ood_count) if counted else ood_count
