"""Background data resampling (``meters.py``): OOD positive, mean of five trials on one OOD image per five ID images."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.specs import RuleSpec
from workflow_scripts.metrics.ood import auroc, average_precision, checked, curve

SPEC = RuleSpec()
RATIO = 0.2  # OOD images per ID image in each trial
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
    """Mean of five trials, each on a random 0.2 N of the M OOD images, without replacement.

    The release draws unseeded; here ``seed`` makes it repeatable. AUPR belongs to the ratio 1 : 5.

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
    return {metric: math.fsum(one[metric] for one in trials) / TRIALS for metric in trials[0]}


def ood_images(id_count: int, ood_count: int) -> int:
    """How many OOD images a trial draws."""
    return int(RATIO * id_count)
