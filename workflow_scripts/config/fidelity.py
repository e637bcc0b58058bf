"""The defects of the released code that change numbers: the switches of ``fidelity: {released: [...]}``.

Defects that only crash are simply fixed and are no switches. Each plugin declares its own (``SPEC``, field
``defects``); the ids are those of the papers' pages in docs/. A recipe that reproduces defects of its method carries
their ids in its name and so in every path (``npos+B1+B2``). Those of the evaluation (:func:`of_evaluation`) train
nothing anew: their numbers stand beside the corrected ones.
"""

from __future__ import annotations

import functools
import re
from typing import TypeVar

from workflow_scripts.core import plugins
from workflow_scripts.core.errors import OODError, unknown
from workflow_scripts.core.specs import KINDS, EvaluatedSpec, MethodSpec

Declaration = TypeVar("Declaration", MethodSpec, EvaluatedSpec)


def _declared(kind: type[Declaration]) -> list[Declaration]:
    """The declarations of every plugin of such a kind."""
    packages = [package for package, declares in KINDS.items() if issubclass(declares, kind)]
    return [plugins.spec(package, name) for package in packages for name in plugins.names(package)]


@functools.cache
def defects() -> dict[str, str]:
    """What the released code does, by defect, in the order of their ids."""
    found = {defect: what for spec in _declared(MethodSpec) for defect, what in spec.defects.items()}
    found |= {defect: what for spec in _declared(EvaluatedSpec) for defect, (what, _) in spec.defects.items()}
    return dict(sorted(found.items(), key=lambda item: [int(part) if part.isdigit() else part
                                                        for part in re.split(r"(\d+)", item[0])]))


@functools.cache
def of_evaluation() -> dict[str, str]:
    """Defects that the evaluation reproduces -> how; both numbers are computed, under names of their own."""
    return {defect: how for spec in _declared(EvaluatedSpec) for defect, (_, how) in spec.defects.items() if how}


def methods_with(defect: str) -> list[str]:
    """Methods that have a switch for a defect."""
    return [name for name in plugins.names("methods") if defect in plugins.spec("methods", name).switches]


def resolve(everywhere: list[str], own: list[str], switches: tuple[str, ...], where: str) -> tuple[str, ...]:
    """Defects that a recipe reproduces: its own, and those asked for everywhere that its method has a switch for.

    Args:
        everywhere: ``fidelity.released`` of the configuration.
        own: ``released`` of the recipe.
        switches: ids that it can reproduce.
        where: the recipe's place in the configuration, for messages.

    Raises:
        OODError: an unknown id, or one of the recipe's own that its method has no switch for.
    """
    for bug in everywhere:
        if bug not in defects():
            raise unknown("fidelity.released", bug, defects())
    for bug in own:
        if bug not in switches and bug not in defects():
            raise unknown(f"{where}.released", bug, defects())
        if bug not in switches and bug in of_evaluation():
            raise OODError(f"{where}.released: '{bug}' concerns the evaluation, not a training; name it in "
                           "fidelity.released")
        if bug not in switches:
            raise OODError(f"{where}.released: the method has no switch for '{bug}', or the recipe's key defects "
                           f"leaves it out (it has: {', '.join(switches) or 'none'})")
    return tuple(sorted({bug for bug in everywhere if bug in switches} | set(own)))


def suffix(bugs: tuple[str, ...]) -> str:
    """What a recipe's name carries: ``("npos.B1", "npos.B2")`` -> ``"+B1+B2"``; empty when corrected."""
    return "".join(f"+{bug.split('.', 1)[1]}" for bug in bugs)
