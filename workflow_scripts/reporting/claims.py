"""A paper's claim beside what a run shows of it: two rows of its table, and whether they differ by more than seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from workflow_scripts.core.claims import Claim
from workflow_scripts.reporting.layout import label
from workflow_scripts.reporting.results import AVERAGE, corrected
from workflow_scripts.reporting.statistics import Seeds, metric, noise, show

SHOWN = (("near", "auroc"), ("far", "auroc"), ("far", "fpr95"))
"""(Group of OOD sets, metric) of a claim; what a paper has no group of is left out."""
WITHIN, BETTER, WORSE, UNKNOWN = "within seed noise", "better", "worse", "one seed: noise not known"


@dataclass(frozen=True)
class Line:
    """One metric of one group of sets: the baseline, the paper's row, and what may be said of their difference."""

    group: str
    metric: str
    baseline: Seeds
    ours: Seeds

    @property
    def title(self) -> str:
        """``far-OOD FPR95 (ID+) ↓``."""
        return f"{self.group}-OOD {label(self.metric)}"

    @property
    def verdict(self) -> str:
        """Whether the means differ by more than twice the larger standard deviation over seeds."""
        limit = noise(self.baseline, self.ours, metric(self.metric).tie)
        if limit is None:
            return UNKNOWN
        gain = self.ours.mean - self.baseline.mean
        if abs(gain) <= limit:
            return WITHIN
        return BETTER if (gain > 0) == bool(metric(self.metric).higher) else WORSE

    def shown(self, seeds: Seeds) -> str:
        """One of the two numbers, as tables print it."""
        return show(seeds, self.metric)


@dataclass(frozen=True)
class Shown:
    """What a run shows of a claim."""

    says: str
    ours: str
    baseline: str
    lines: tuple[Line, ...]

    @property
    def n(self) -> int:
        """Seeds that both rows have, of the number with fewest."""
        return min((min(line.ours.n, line.baseline.n) for line in self.lines), default=0)

    @property
    def sentence(self) -> str:
        """All numbers, in one sentence."""
        parts = [f"{line.title} {line.shown(line.baseline)} → {line.shown(line.ours)} ({line.verdict})"
                 for line in self.lines]
        seeds = f"{self.n} seed{'s' * (self.n != 1)}"
        return f"{self.ours} against {self.baseline}, {seeds}: {'; '.join(parts)}."


def shown(results: pd.DataFrame, claim: Claim | None, names: Mapping[str, str]) -> Shown | None:
    """What a paper's results show of its claim, on the first ID set and network that have both rows; ``None`` without a
    claim, or where a row has not run."""
    if claim is None or results.empty:
        return None
    found = results[(results["group"] == AVERAGE) & corrected(results)]
    for _, rows in found.groupby(["id", "network"], sort=False):
        numbers = rows.set_index(["recipe", "score", "dataset", "metric"])["seeds"].to_dict()
        lines = []
        for group, name in SHOWN:
            both = [numbers.get((row.recipe, row.score, group, name)) for row in (claim.baseline, claim.ours)]
            if all(seeds and seeds.n for seeds in both):
                lines.append(Line(group, name, *both))
        if lines:
            labels = rows.drop_duplicates("recipe").set_index("recipe")["label"]
            one_training = claim.ours.recipe == claim.baseline.recipe
            one_score = claim.ours.score == claim.baseline.score
            texts = [" by ".join(part for part, same in ((labels[row.recipe], one_training),
                                                         (names.get(row.score, row.score), one_score)) if not same)
                     for row in (claim.ours, claim.baseline)]
            return Shown(claim.says, *texts, tuple(lines))
    return None
