"""The papers' own counting rules, to meet their printed numbers: the modules of ``metrics/rules`` by name.

The strict rules stand in ``ood`` and ``confidence``.
"""

from __future__ import annotations

from collections.abc import Callable

from numpy.typing import ArrayLike

from workflow_scripts.core import plugins

Rule = Callable[[ArrayLike, ArrayLike], dict[str, float]]

_MODULES = {name: plugins.load("metrics.rules", module) for name, module in plugins.metric_rules().items()}
OOD_RULES: dict[str, Rule] = {name: module.ood for name, module in _MODULES.items()}
ID_RULES: dict[str, Rule] = {name: module.confidence for name, module in _MODULES.items()
                             if hasattr(module, "confidence")}


def ood_images(rule: str, id_count: int, ood_count: int) -> int:
    """How many OOD images stand behind one number of a rule."""
    counted = getattr(_MODULES[rule], "ood_images", None)
    return counted(id_count, ood_count) if counted else ood_count
