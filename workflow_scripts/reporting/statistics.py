"""Means over seeds, and when one result may be called better than another by what its seeds say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

TIE = 0.1  # printed numbers that differ by less print alike or nearly so
POINTS = 0.5  # percentage points
OF_VALUE = 0.02  # of a metric without a scale of its own: from 4 on CIFAR-10 to 160 on CIFAR-100 in one published table


@dataclass(frozen=True)
class Metric:
    """How a metric is shown. ``scale`` turns the stored fraction into the printed number."""

    label: str
    higher: bool | None
    """Whether higher is better; ``None`` = no direction, so nothing is marked best."""
    scale: float
    means: str
    """One sentence: what it measures and which class is positive."""
    share: float = 0.0
    """Of a published value that a difference may be and still count as none; 0: :data:`POINTS` instead."""

    def tolerance(self, published: float) -> float:
        """What a difference from a published number, both in print, may be whatever the seeds say."""
        return self.share * abs(published) if self.share else POINTS

    @property
    def arrow(self) -> str:
        return {True: "↑", False: "↓", None: ""}[self.higher]

    @property
    def tie(self) -> float:
        """Stored values closer than this count as equal: 0.1 in print."""
        return TIE / self.scale


METRICS = {
    "auroc": Metric("AUROC", True, 100, "chance that a random ID image scores above a random OOD image; ID is "
                    "positive, ties count half, 50 is chance"),
    "fpr95": Metric("FPR95 (ID+)", False, 100, "share of OOD images accepted as ID at the first threshold that accepts "
                    "95 % of the ID images; ID is positive"),
    "fpr95_ood": Metric("FPR95 (OOD+)", False, 100, "share of ID images flagged as OOD at the first threshold that "
                        "flags 95 % of the OOD images; OOD is positive"),
    "aupr_in": Metric("AUPR-in", True, 100, "average precision with ID positive; depends on the ratio of the counts"),
    "aupr_out": Metric("AUPR-out", True, 100, "average precision with OOD positive; depends on the ratio of the "
                       "counts"),
    "detection_error": Metric("Detection error", False, 100, "smallest mean of the two error rates over all "
                              "thresholds"),
    "accuracy": Metric("ACC", True, 100, "share of ID test images given their right class"),
    "accuracy_prototype": Metric("ACC (prototype)", True, 100, "as ACC, by the nearest class mean of the features"),
    "f1": Metric("F1", True, 100, "F1 score of accepting at a confidence of 0.5; ID is positive"),
    "ece": Metric("ECE", False, 100, "expected calibration error of the largest softmax probability, ID test images"),
    "aurc": Metric("AURC ×10³", False, 1000, "area under the risk-coverage curve over the ID test images, times 1000",
                   OF_VALUE),
    "eaurc": Metric("E-AURC ×10³", False, 1000, "AURC less that of the best possible order, times 1000",
                    OF_VALUE),
    "augrc": Metric("AUGRC ×10³", False, 1000, "area under the generalised risk-coverage curve, the share of ID test "
                    "images that are accepted and wrong, times 1000", OF_VALUE),
    "aupr_error": Metric("AUPR-error", True, 100, "average precision with misclassified ID test images positive"),
    "auroc_correct": Metric("AUROC (correct)", True, 100, "chance that a random ID test image that is classified right "
                            "has a higher confidence than one that is not"),
    "aupr_correct": Metric("AUPR-correct", True, 100, "average precision with ID test images that are classified right "
                           "positive"),
    "fpr95_error": Metric("FPR95 (errors)", False, 100, "share of misclassified ID test images still accepted where "
                          "95 % of the right ones are"),
}


SPREAD = "_std"
"""How the name of a metric ends that is the spread of another one, over the draws of a counting rule."""


def spread_of(name: str) -> str:
    """The name of a metric's spread: ``auroc@bg-resample`` -> ``auroc_std@bg-resample``."""
    base, at, paper = name.partition("@")
    return f"{base}{SPREAD}{at}{paper}"


def is_spread(name: str) -> bool:
    """Whether a metric is the spread of another."""
    return name.partition("@")[0].endswith(SPREAD)


def metric(name: str) -> Metric:
    """How ``name`` is shown. ``fpr95@goe`` is a metric by a paper's own counting rule, ``fpr95_std@...`` its spread.

    A metric not described here is shown under its own name in percent, without a best.
    """
    base, _, paper = name.partition("@")
    found = METRICS.get(base.removesuffix(SPREAD), Metric(base, None, 100, "not described"))
    if is_spread(name):
        found = replace(found, label=f"{found.label}, spread", higher=None,
                        means=f"standard deviation of {found.label} over the draws of its rule")
    if not paper:
        return found
    return replace(found, label=f"{found.label} @{paper}", means=f"{found.label} counted by the rule of {paper}'s code")


@dataclass(frozen=True)
class Seeds:
    """One quantity over seeds: (seed, value) pairs; NaN = computed but not a number, ``None`` = not there."""

    values: tuple[tuple[int, float | None], ...]

    @property
    def finite(self) -> list[float]:
        return [v for _, v in self.values if v is not None and math.isfinite(v)]

    @property
    def n(self) -> int:
        """How many seeds have a number."""
        return len(self.finite)

    @property
    def mean(self) -> float | None:
        """Mean over the seeds that have a number; ``None`` where none has."""
        return math.fsum(self.finite) / self.n if self.n else None

    @property
    def std(self) -> float | None:
        """Sample standard deviation (ddof = 1); ``None`` below two seeds."""
        if self.n < 2:
            return None
        mean = self.mean
        return math.sqrt(math.fsum((v - mean) ** 2 for v in self.finite) / (self.n - 1))

    @property
    def gaps(self) -> list[str]:
        """One phrase per seed without a number, e.g. ``seed 1 is NaN``."""
        return [f"seed {seed} is {'missing' if v is None else 'NaN' if math.isnan(v) else 'infinite'}"
                for seed, v in self.values if v is None or not math.isfinite(v)]

    def text(self) -> str:
        """``0=0.9512;1=nan;2=missing``: each seed's value, exactly."""
        return ";".join(f"{seed}={'missing' if v is None else repr(v)}" for seed, v in self.values)

    @classmethod
    def parse(cls, text: str) -> Seeds:
        """The inverse of :meth:`text`."""
        pairs = (item.split("=") for item in text.split(";") if item)
        return cls(tuple((int(seed), None if v == "missing" else float(v)) for seed, v in pairs))


def average(sets: Sequence[Seeds]) -> Seeds:
    """Unweighted mean over sets, seed by seed. A seed that lacks one of the sets has no average.

    ``sets`` share their seeds. A seed with a missing set is missing, with a NaN set is NaN: an average over fewer
    sets would be another quantity.
    """
    rows = zip(*(s.values for s in sets), strict=True)
    return Seeds(tuple((row[0][0], None if any(v is None for _, v in row) else sum(v for _, v in row) / len(row))
                       for row in rows))


def noise(a: Seeds, b: Seeds, tie: float) -> float | None:
    """What a difference between two means must exceed: twice the larger standard deviation, at least ``tie``.

    ``None`` where either has fewer than two seeds, so that nothing can be said.
    """
    if a.std is None or b.std is None:
        return None
    return max(2 * max(a.std, b.std), tie)


def best(column: Sequence[Seeds | None], measure: Metric) -> set[int]:
    """Positions to print in bold among competing results of one metric.

    With two or more seeds in common: the best mean, if it leads each other by the t-test paired by seed (two-sided, p
    at most 0.05), else none. With one seed anywhere: the best mean and what ties with it (a caption must then say "one
    seed").
    Fewer than two results with a number: none.
    """
    from workflow_scripts.metrics import paired  # numpy, which the Snakefile does not need

    there = {i: s for i, s in enumerate(column) if s is not None and s.n}
    if measure.higher is None or len(there) < 2:
        return set()
    sign = 1 if measure.higher else -1
    top = max(there, key=lambda i: sign * there[i].mean)
    lead = {i: sign * (there[top].mean - s.mean) for i, s in there.items() if i != top}
    apart = [differences(there[top], there[i]) for i in lead]
    if any(len(found) < 2 for found in apart):
        tied = {i for i, d in lead.items() if d < measure.tie}
        return set() if len(tied) == len(lead) else {top} | tied
    tests = [paired.over_seeds(found) for found in apart]
    return {top} if all(test.clear and sign * test.estimate > 0 for test in tests) else set()


def differences(first: Seeds, second: Seeds) -> list[float]:
    """Values of ``first`` less those of ``second``, for the seeds that both have a number of."""
    others = dict(second.values)
    pairs = [(value, others.get(seed)) for seed, value in first.values]
    return [a - b for a, b in pairs if a is not None and b is not None and math.isfinite(a) and math.isfinite(b)]


def show(seeds: Seeds | None, name: str, digits: int = 1) -> str:
    """``97.1 ± 0.2`` in the unit of metric ``name``; no ± for one seed; ``NaN`` or ``missing`` where there is none.

    Where some seeds have no number the count of those that do follows: ``97.1 (1 of 2 seeds)``.
    """
    if seeds is None or not seeds.values:
        return "missing"
    if not seeds.n:
        return "missing" if all(v is None for _, v in seeds.values) else "NaN"
    scale = metric(name).scale
    text = f"{seeds.mean * scale:.{digits}f}"
    if seeds.std is not None:
        text += f" ± {seeds.std * scale:.{digits}f}"
    return text if seeds.n == len(seeds.values) else f"{text} ({seeds.n} of {len(seeds.values)} seeds)"
