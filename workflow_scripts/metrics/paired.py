"""How far AUROC and FPR95 would move on other images, of one score and of two scores on the same images.

AUROC: the covariance of DeLong et al. (Biometrics 1988), from midranks in O(n log n) as Sun and Xu (IEEE Signal
Processing Letters 2014). FPR95: the bootstrap over images, ID and OOD images drawn apart, percentile intervals; its
replicates have the distribution of resampled image lists without the lists being made, so 1e6 scores take a second.

Several OOD sets stand for the unweighted mean over them, whose ID images are the same. Intervals are of the images
alone: the network is fixed. Over trainings instead: :func:`over_seeds`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workflow_scripts.core.errors import OODError
from workflow_scripts.metrics.ood import checked, needed

Values = NDArray[np.float64]

LEVEL = 0.95
ALPHA = 0.05
DRAWS = 1000
Z = NormalDist().inv_cdf((1 + LEVEL) / 2)
NOTHING = 1e-12  # a standard error below it is rounding
TAIL = 8  # standard deviations of a threshold's rank that a resample is followed over; beyond them lies 1e-15
CELLS = 1 << 18  # multiplicities in memory at once


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval; of a difference also the two-sided ``p`` that there is none.

    NaN where the images cannot tell: a sample without any pair in the wrong order has no DeLong variance.
    """

    estimate: float
    low: float
    high: float
    p: float = math.nan

    @property
    def clear(self) -> bool:
        """Whether a difference is one: p at most 0.05."""
        return self.p <= ALPHA


@dataclass(frozen=True)
class Components:
    """What each image adds to the AUROC of one score.

    ``id`` (N,): the share of OOD images below each ID image, equal ones by half, averaged over the sets; ``ood``: for
    each set (M,) the share of ID images above each OOD image.
    """

    id: Values
    ood: tuple[Values, ...]

    @property
    def auroc(self) -> float:
        """The AUROC, averaged over the sets."""
        return float(self.id.mean())

    def variance(self) -> float:
        """DeLong's variance of the AUROC."""
        within = sum(float(part.var(ddof=1)) / part.size for part in self.ood)
        return float(self.id.var(ddof=1)) / self.id.size + within / len(self.ood) ** 2


def components(id_scores: ArrayLike, ood_scores: Sequence[ArrayLike]) -> Components:
    """The components of a score's AUROC, in the order of the images.

    Args:
        id_scores: (N,), higher = more ID; N >= 2.
        ood_scores: for each OOD set (M,); M >= 2.

    Raises:
        OODError: fewer than two images on a side, no OOD set, or scores that are not finite numbers.
    """
    inside, outside = _sides(id_scores, ood_scores)
    return average([Components(_below(inside, other), (1 - _below(other, inside),)) for other in outside])


def average(sets: Sequence[Components]) -> Components:
    """The components of the mean AUROC over sets, each with the same ID images.

    Raises:
        OODError: no set, or ID images that differ.
    """
    if not sets or len({one.id.size for one in sets}) > 1:
        raise OODError(f"average over sets: expected one number of ID images, found {[one.id.size for one in sets]}; "
                       "delete the score files and run again")
    return Components(np.mean([one.id for one in sets], axis=0), tuple(part for one in sets for part in one.ood))


def _sides(id_scores: ArrayLike, ood_scores: Sequence[ArrayLike]) -> tuple[Values, list[Values]]:
    """Checked scores of both sides; two images are the fewest that vary."""
    inside, outside = checked(id_scores, "ID scores"), [checked(part, "OOD scores") for part in ood_scores]
    if not outside:
        raise OODError("OOD scores: expected at least one set, found none; name the OOD sets")
    for what, part in [("ID", inside), *(("OOD", part) for part in outside)]:
        if part.size < 2:
            raise OODError(f"{what} scores: an interval over images needs two images or more, found {part.size}; give "
                           "the set more images")
    return inside, outside


def _below(scores: Values, others: Values) -> Values:
    """For each score (N,) the share of ``others`` (M,) below it, equal ones by half. -> (N,)."""
    order = np.argsort(scores)
    ranked, others = scores[order], np.sort(others)  # ascending look-ups stay in the cache
    twice = np.searchsorted(others, ranked, "left") + np.searchsorted(others, ranked, "right")
    found = np.empty(scores.size)
    found[order] = twice / (2 * others.size)
    return found


def auroc_interval(score: Components) -> Interval:
    """The AUROC of one score, its interval symmetric in the logit so that it stays within 0 and 1."""
    auroc, error = score.auroc, math.sqrt(score.variance())
    if error < NOTHING or not 0 < auroc < 1:
        return Interval(auroc, math.nan, math.nan)
    middle, half = math.log(auroc / (1 - auroc)), Z * error / (auroc * (1 - auroc))
    return Interval(auroc, *(1 / (1 + math.exp(-x)) for x in (middle - half, middle + half)))


def auroc_difference(first: Components, second: Components) -> Interval:
    """AUROC of ``first`` less that of ``second`` on the same images, by DeLong's test.

    Raises:
        OODError: the two are of other images.
    """
    _same(first, second)
    apart = Components(first.id - second.id, tuple(a - b for a, b in zip(first.ood, second.ood, strict=True)))
    estimate, error = first.auroc - second.auroc, math.sqrt(apart.variance())
    if error < NOTHING:
        return _without_spread(estimate)
    return Interval(estimate, estimate - Z * error, estimate + Z * error, math.erfc(abs(estimate) / error / 2**0.5))


def _without_spread(estimate: float) -> Interval:
    """Nothing varies: two scores are the same, or the sample cannot tell how much they would."""
    if abs(estimate) < NOTHING:
        return Interval(estimate, estimate, estimate, 1.0)
    return Interval(estimate, math.nan, math.nan)


def _same(first: Components, second: Components) -> None:
    sizes = [[part.size for part in (one.id, *one.ood)] for one in (first, second)]
    if sizes[0] != sizes[1]:
        raise OODError(f"paired scores: expected two scores of the same images, found {sizes[0]} and {sizes[1]} images "
                       "(ID, then each OOD set); delete the score files of the older run and run again")


def over_seeds(differences: Sequence[float]) -> Interval:
    """The mean difference of two trainings or scores over seeds, paired by seed, by Student's t.

    Args:
        differences: (n,) one per seed, n >= 2.

    Raises:
        OODError: fewer than two seeds, or a difference that is not finite.
    """
    from scipy import special  # not where the Snakefile or a table reads the rest of this module

    found = checked(differences, "differences over seeds")
    if found.size < 2:
        raise OODError(f"differences over seeds: expected two seeds or more, found {found.size}; train more seeds, or "
                       "ask for intervals over images")
    estimate, error = float(found.mean()), float(found.std(ddof=1)) / math.sqrt(found.size)
    if error < NOTHING:
        return _without_spread(estimate)
    half = float(special.stdtrit(found.size - 1, (1 + LEVEL) / 2)) * error
    return Interval(estimate, estimate - half, estimate + half,
                    2 * float(special.stdtr(found.size - 1, -abs(estimate) / error)))


# -- FPR95 --------------------------------------------------------------------------------------------------------


def fpr95_value(id_scores: ArrayLike, ood_scores: Sequence[ArrayLike]) -> float:
    """FPR95 of one score with ID positive, averaged over sets; arguments as :func:`fpr95_interval`."""
    inside, outside = _sides(id_scores, ood_scores)
    rejected = inside.size - needed(inside.size)
    threshold = np.partition(inside, rejected)[rejected]
    return sum(float((part >= threshold).mean()) for part in outside) / len(outside)


def fpr95_interval(id_scores: ArrayLike, ood_scores: Sequence[ArrayLike], rng: np.random.Generator,
                   draws: int = DRAWS) -> Interval:
    """FPR95 of one score with ID positive, by the bootstrap over images.

    Args:
        id_scores: (N,), higher = more ID; N >= 2.
        ood_scores: for each OOD set (M,); M >= 2. The FPR95 is averaged over sets.
        rng: where the resamples come from.
        draws: resamples, at least 1.

    Raises:
        OODError: as :func:`components`.
    """
    inside, outside = _sides(id_scores, ood_scores)
    ranked = np.sort(inside)
    rejected = inside.size - needed(inside.size)
    # the order statistic of N uniform draws of ranks
    ranks = (inside.size * rng.beta(rejected + 1, inside.size - rejected, draws)).astype(np.int64)
    found = np.zeros(draws)
    for part in outside:
        ascending = np.sort(part)
        shares = 1 - np.searchsorted(ascending, ranked[ranks], "left") / part.size
        found += rng.binomial(part.size, shares) / part.size / len(outside)
    return _percentiles(fpr95_value(inside, outside), found)


def fpr95_difference(first: tuple[ArrayLike, Sequence[ArrayLike]], second: tuple[ArrayLike, Sequence[ArrayLike]],
                     rng: np.random.Generator, draws: int = DRAWS) -> Interval:
    """FPR95 of ``first`` less that of ``second`` on the same images, ID positive, by the paired bootstrap over images.

    Args:
        first: (ID scores (N,), for each OOD set (M,)), as for :func:`fpr95_interval`.
        second: the same images by the other score, in the same order.
        rng: where the resamples come from.
        draws: resamples, at least 1.

    Raises:
        OODError: the two are of other images, or as :func:`components`.
    """
    sides = [_sides(*one) for one in (first, second)]
    _same(*(Components(inside, tuple(outside)) for inside, outside in sides))
    inside = np.stack([side[0] for side in sides])  # (2, N)
    rejected = inside.shape[1] - needed(inside.shape[1])
    at = _thresholds(inside, rejected, rng, draws)  # (draws, 2)
    found = np.zeros(draws)
    for one, other in zip(*(side[1] for side in sides), strict=True):
        found += _differences(one, other, at, rng) / len(sides[0][1])
    return _percentiles(fpr95_value(*sides[0]) - fpr95_value(*sides[1]), found)


def _thresholds(scores: Values, rejected: int, rng: np.random.Generator, draws: int) -> Values:
    """The thresholds of both scores in resamples of the ID images. scores (2, N) -> (draws, 2).

    Only the images whose rank by either score is near that of the threshold are drawn one by one; of the others it is
    drawn how many lie below, by one score, the other, both or none.
    """
    count = scores.shape[1]
    reach = math.ceil(TAIL * math.sqrt(rejected + 1)) + 5 * TAIL
    low, high = max(rejected - reach, 0), min(rejected + reach, count - 1)
    edges = np.partition(scores, (low, high), axis=1)[:, [low, high], None]  # (2, 2, 1): score, end
    near = ((scores >= edges[:, 0]) & (scores <= edges[:, 1])).any(axis=0)  # (N,)
    below = (scores < edges[:, 0]) & ~near  # (2, N)
    kinds = np.bincount(below[0] + 2 * below[1] + 4 * near, minlength=5)  # none, first, second, both, near
    drawn = rng.multinomial(count, kinds / count, draws)  # (draws, 5)
    beneath = np.stack([drawn[:, 1] + drawn[:, 3], drawn[:, 2] + drawn[:, 3]])  # (2, draws)
    close = scores[:, near]  # (2, P)
    orders = np.argsort(close, axis=1)
    found = np.empty((draws, 2))
    step = max(1, CELLS // close.shape[1])
    for start in range(0, draws, step):
        block = slice(start, min(start + step, draws))
        times = _multiplicities(drawn[block, 4], close.shape[1], rng)  # (block, P)
        for side, order in enumerate(orders):
            up_to = beneath[side, block, None] + times[:, order].cumsum(axis=1)
            place = (up_to <= rejected).sum(axis=1)
            found[block, side] = close[side, order[np.minimum(place, order.size - 1)]]
    return found


def _multiplicities(drawn: NDArray[np.int64], images: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """How often each of ``images`` is drawn in resamples of ``drawn`` (D,) images. -> (D, images)."""
    cells = np.repeat(np.arange(drawn.size), drawn) * images + rng.integers(images, size=int(drawn.sum()))
    return np.bincount(cells, minlength=drawn.size * images).reshape(drawn.size, images)


def _differences(first: Values, second: Values, at: Values, rng: np.random.Generator) -> Values:
    """Differences of the accepted shares in resamples of one OOD set. first, second (M,), at (draws, 2) -> (draws,)."""
    grids, places = zip(*(np.unique(column, return_inverse=True) for column in at.T), strict=True)
    # how many of the thresholds in the grid accept each image
    i, j = (np.searchsorted(grid, part, "right") for grid, part in zip(grids, (first, second), strict=True))
    width = grids[1].size + 1
    table = np.bincount(i * width + j, minlength=(grids[0].size + 1) * width).reshape(-1, width)
    accepted = table[::-1, ::-1].cumsum(axis=0).cumsum(axis=1)[::-1, ::-1]  # images accepted by both of a pair
    both, one, other = (accepted[places[0] + 1, places[1] + 1], accepted[places[0] + 1, 0],
                        accepted[0, places[1] + 1])
    shares = np.stack([one - both, other - both, first.size - one - other + both], axis=1) / first.size
    drawn = rng.multinomial(first.size, shares)
    return (drawn[:, 0] - drawn[:, 1]) / first.size


def _percentiles(estimate: float, found: Values) -> Interval:
    """The interval between the outer 2.5 % of the resamples, and twice the share on the other side of no difference."""
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    beyond = min(int((found <= 0).sum()), int((found >= 0).sum()))
    return Interval(estimate, float(low), float(high), min(1.0, 2 * (beyond + 1) / (found.size + 1)))
