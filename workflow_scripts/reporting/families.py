"""Rows of many scores in families, the best of each family first, the others of it to be folded away."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import get_args

import pandas as pd

from workflow_scripts.core.specs import Family
from workflow_scripts.reporting.statistics import Seeds, metric

FEW = 12
"""Scores that are read at a glance, in the order of the configuration."""


def arranged(heads: pd.DataFrame, families: Mapping[str, str], metric_name: str,
             numbers: Mapping[tuple[str, str], Seeds | None], headline: str = "") -> pd.DataFrame:
    """Rows of a table in the order in which they are read.

    Args:
        heads: a row for each ``recipe`` and ``score``.
        families: of each score.
        metric_name: by which scores of a family are ordered.
        numbers: this metric of each recipe and score.
        headline: the score that the paper is about, which is not folded.

    Returns:
        The rows with ``family`` and ``folded``: whether another row of the same training and family is better. With few
        scores the rows as they are, without a family, none folded.
    """
    if heads["score"].nunique() <= FEW or not families:
        return heads.assign(family="", folded=False)
    sign = -1 if metric(metric_name).higher else 1

    def worse(recipe: str, score: str) -> float:
        seeds = numbers.get((recipe, score))
        return math.inf if seeds is None or seeds.mean is None else sign * seeds.mean

    order = {name: place for place, name in enumerate(get_args(Family))}
    rows = heads.assign(
        family=[families.get(score, get_args(Family)[-1]) for score in heads["score"]],
        training=pd.factorize(heads["recipe"])[0],
        worse=[worse(*pair) for pair in heads[["recipe", "score"]].itertuples(index=False, name=None)])
    rows = rows.assign(place=rows["family"].map(order)).sort_values(["training", "place", "worse"], kind="stable")
    return rows.assign(folded=rows.duplicated(["recipe", "family"]) & (rows["score"] != headline))
