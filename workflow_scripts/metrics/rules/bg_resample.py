"""Background data resampling (``meters.py``): OOD positive, mean of five trials on one OOD image per five ID images."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.specs import RuleSpec
from workflow_scripts.metrics.ood import auroc, average_precision, checked, curve

SPEC = RuleSpec(
    draws=0.2,
    columns=("fpr95_ood", "auroc", "aupr_out"),
    says="OOD is positive; one OOD image for five ID images, drawn anew in each of five trials; FPR95 counts ID images "
         "at or below the 95 % quantile of the OOD scores. Mean of the trials, in brackets their standard deviation "
         "(the mean of it over seeds): it is noise of the draw, not of the training.")
TRIALS = 5


def trial(id_scores: ArrayLike, ood_scores: ArrayLike) -> dict[str, float]:
    """One trial, on all the scores given: OOD positive.

    The FPR counts ID scores at or below the linearly interpolated 95 % quantile of the OOD scores.
    """
    id_scores, ood_scores = checked(id_scores, "ID scores"), checked(ood_scores, "OOD scores")
    joined = curve(id_scores, ood_scores)
    return {"auroc": auroc(joined), "fpr95_ood": float(np.mean(id_scores <= np.quantile(ood_scores, 0.95))),
            "aupr_out": average_precision(joined.flipped())}


def ood(id_scores: ArrayLike, ood_scores: ArrayLike, seed: int = 0) -> dict[str, float]:
    """Five trials, each on a random 0.2 N of the M OOD images, without replacement.

    ``auroc``, ``fpr95_ood`` and ``aupr_out`` are their means, with ``_std`` behind the name their population standard
    deviations; the release prints both. It draws unseeded; here ``seed`` makes the draws repeatable. AUPR belongs to
    the ratio 1 : 5.

    Raises:
        OODError: fewer than 5 ID images, or fewer OOD images than a trial draws.
    """
    id_scores, ood_scores = checked(id_scores, "ID scores"), checked(ood_scores, "OOD scores")
    draw = ood_images(id_scores.size, ood_scores.size)
    if not 0 < draw <= ood_scores.size:
        raise OODError(f"compat 'bg-resample': a trial takes 20 % as many OOD as ID images, here {draw}; "
                       f"found {ood_scores.size} OOD images; use larger sets or take 'bg-resample' out of the compat "
                       "list")
    rng = np.random.default_rng(seed)
    trials = [trial(id_scores, rng.choice(ood_scores, draw, replace=False)) for _ in range(TRIALS)]
    found = {metric: [one[metric] for one in trials] for metric in trials[0]}
    return {**{metric: math.fsum(values) / TRIALS for metric, values in found.items()},
            **{f"{metric}_std": float(np.std(values)) for metric, values in found.items()}}


def ood_images(id_count: int, ood_count: int) -> int:
    """How many OOD images a trial draws."""
    return int(SPEC.draws * id_count)
