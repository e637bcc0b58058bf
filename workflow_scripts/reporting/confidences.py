"""What the reliability figures draw, as arrays: risk over coverage, confidences of three kinds of images, calibration.

A confidence is any score, higher = more certain and more ID. No plotting here, no metric is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workflow_scripts.metrics.confidence import Calibration, aurc, calibration, ece, errors_curve, risk

COVERAGE = np.linspace(0.005, 1, 200)
HISTOGRAM = 30  # bins


@dataclass(frozen=True)
class Seen:
    """One trained network: ``confidence`` and ``correct`` (N,) of the ID test images, the softmax ``probability`` (N,)
    of their predicted classes, ``ood`` (M,) confidences of all OOD images."""

    confidence: np.ndarray
    correct: np.ndarray
    probability: np.ndarray
    ood: np.ndarray


@dataclass(frozen=True)
class Training:
    """One recipe of one network on one ID set, over S seeds."""

    id: str
    network: str
    label: str
    seen: tuple[Seen, ...]

    @property
    def risks(self) -> np.ndarray:
        """Share of errors among the most confident share :data:`COVERAGE` of the ID images. -> (S, P)."""
        return np.array([risk(errors_curve(s.confidence, s.correct), COVERAGE) for s in self.seen])

    @property
    def aurc(self) -> list[float]:
        """AURC of each seed, as a fraction."""
        return [aurc(errors_curve(s.confidence, s.correct)) for s in self.seen]

    @property
    def ece(self) -> list[float]:
        """Expected calibration error of each seed, 15 bins, as a fraction."""
        return [ece(s.probability, s.correct) for s in self.seen]

    def kinds(self) -> dict[str, np.ndarray]:
        """Confidences of ID images classified right and wrong, and of OOD images; all seeds together."""
        joined = {"right": [s.confidence[s.correct] for s in self.seen],
                  "wrong": [s.confidence[~s.correct] for s in self.seen], "ood": [s.ood for s in self.seen]}
        return {kind: np.concatenate(parts) for kind, parts in joined.items()}

    def calibration(self) -> Calibration:
        """Accuracy in bins of the probability; all seeds together."""
        return calibration(np.concatenate([s.probability for s in self.seen]),
                           np.concatenate([s.correct for s in self.seen]))


def edges(trainings: Sequence[Training], probabilities: bool) -> np.ndarray:
    """Bins of the confidences that all panels share: 0 to 1, or what holds 98 % of each kind of image. -> (B + 1,)."""
    if probabilities:
        return np.linspace(0, 1, HISTOGRAM + 1)
    ends = np.array([np.percentile(values, [1, 99]) for t in trainings for values in t.kinds().values() if values.size])
    low, high = ends[:, 0].min(), ends[:, 1].max()
    return np.linspace(low, max(high, low + 1e-9), HISTOGRAM + 1)


def shares(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Share of the values in each bin; what lies beyond the ends counts in the outermost. (N,), (B + 1,) -> (B,)."""
    return np.histogram(values.clip(edges[0], edges[-1]), edges)[0] / max(values.size, 1)
