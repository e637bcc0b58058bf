"""Search among the options that a score declares: which points are tried, which is best, and how both are written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.files import atomic
from workflow_scripts.metrics.ood import auroc, curve, fpr95

Space = Mapping[str, tuple[Any, ...]]
"""Options -> values to try."""
Found = dict[str, float] | OODError
"""AUROC and FPR95 with some options, or why they cannot be computed."""


def quality(id: np.ndarray, others: Iterable[np.ndarray]) -> dict[str, float]:
    """``auroc`` and ``fpr95`` of the scores of an ID set against those of OOD sets, each (N,); means over the OOD sets,
    ID is positive.

    Raises:
        OODError: a score is NaN or infinite.
    """
    others = list(others)
    if not all(np.isfinite(scores).all() for scores in (id, *others)):
        raise OODError("scores are NaN or infinite")
    curves = [curve(id, other) for other in others]
    return {"auroc": float(np.mean([auroc(one) for one in curves])),
            "fpr95": float(np.mean([fpr95(one) for one in curves]))}


def rows(measure: Callable[[Sequence[Any]], Sequence[Found]], options: Any, space: Space, at_most: int,
         criterion: str) -> list[dict[str, Any]]:
    """A row for each point: values of the space's options, ``auroc``, ``fpr95`` and, where it is left out, ``why``.

    All points where they are few; else the values of one option after the other, each with the best before it. The
    options as they are come first, also where they are no point of the space.

    Args:
        measure: finds out how good options are, several at once.
        at_most: points that are few.
    """
    found: dict[tuple[Any, ...], dict[str, Any]] = {}

    def measured(points: Iterable[tuple[Any, ...]]) -> None:
        fresh = [values for values in dict.fromkeys(points) if values not in found]
        tried: dict[tuple[Any, ...], Any] = {}
        for values in fresh:
            point = dict(zip(space, values, strict=True))
            found[values] = {**point, "auroc": np.nan, "fpr95": np.nan, "why": ""}
            try:
                tried[values] = replace(options, **point)
            except ValueError as error:  # of the options' own check
                found[values]["why"] = str(error)
        for values, numbers in zip(tried, measure(list(tried.values())) if tried else [], strict=True):
            found[values].update({"why": str(numbers)} if isinstance(numbers, OODError) else numbers)

    first = tuple(getattr(options, name) for name in space)
    if prod(map(len, space.values())) <= at_most:
        measured([first, *product(*space.values())])
        return list(found.values())
    measured([first])
    for name, values in space.items():
        fitting = [row for row in found.values() if not row["why"]]
        now = best(fitting, criterion) if fitting else dict(zip(space, first, strict=True))
        measured(tuple({**now, name: value}[key] for key in space) for value in values)
    return list(found.values())


def best(rows: Sequence[dict[str, Any]], criterion: str) -> dict[str, Any]:
    """The best row by the criterion, then by the other number, then the first."""
    def rank(row: dict[str, Any]) -> tuple[float, float]:
        numbers = (-row["auroc"], row["fpr95"])
        return numbers if criterion == "auroc" else numbers[::-1]

    return min(rows, key=rank)


def declared(space: Space, name: str) -> Space:
    """The space of a score. Raises OODError when it declares none."""
    if not space:
        raise OODError(f"score '{name}' declares no options to search among; take it out, or give its SPEC a space")
    return space


def write(rows: Sequence[dict[str, Any]], options: Any, space: Space, name: str, criterion: str, csv: Path,
          choice: Path) -> str:
    """Write all points and the best one. -> a line that says it.

    Raises:
        OODError: no point can be computed.
    """
    fitting = [row for row in rows if not row["why"]]
    if not fitting:
        raise OODError(f"score '{name}': no point of its space can be computed; the first: {rows[0]['why']}")
    chosen = {key: value for key, value in best(fitting, criterion).items() if key != "why"}
    with atomic(csv) as partial:
        pd.DataFrame(rows).to_csv(partial, index=False)
    with atomic(choice) as partial:
        partial.write_text(json.dumps({**chosen, "points": len(rows), "left_out": len(rows) - len(fitting),
                                       "options": asdict(options)}, indent=1, sort_keys=True) + "\n")
    return (f"{', '.join(f'{option} = {chosen[option]}' for option in space)}: AUROC {chosen['auroc']:.4f}, FPR95 "
            f"{chosen['fpr95']:.4f} ({len(fitting)} of {len(rows)} points)")
