"""What a metric rule of a paper offers, and what several of them compute.

A rule repeats what the released code computes, under the strict metrics' names and as fractions; a metric that a
release does not compute is absent. A name that ends in ``_std`` is the spread of the metric before it. A rule is one
module in this folder, named as in `compat` and in metrics (`auroc@bg-resample`) but for its dashes, with

``SPEC``
    a :class:`~workflow_scripts.core.specs.RuleSpec`;
``ood(id_scores, ood_scores) -> {metric: value}``
    the OOD task;
``confidence(confidence, correct) -> {metric: value}``
    optional; the ID task: confidence (N,), correct (N,) 0/1 or bool;
``thresholded(id_confidence, ood_confidence) -> {metric: value}``
    optional; metrics of the OOD task at a threshold that the release sets itself. They depend on more than the order
    of the scores, so they get what the release thresholds (``ScoreSpec.confidence``), of scores that have it;
``ood_images(id_count, ood_count) -> int``
    optional; how many OOD images stand behind one number; left out: all of them.
"""

from __future__ import annotations

import numpy as np

from workflow_scripts.metrics.ood import Counts, Curve


def nearest(tp: Counts) -> int:
    """First index whose recall tp / max(tp) lies nearest to 0.95, compared in float64 as the releases do."""
    return int(np.argmin(np.abs(tp / tp.max() - 0.95)))


def hendrycks_fpr(curve: Curve) -> float:
    """FPR at the distinct score whose recall is nearest to 0.95 (may lie below); of equal distances the largest FPR."""
    full = int(np.searchsorted(curve.tp, curve.positives))  # thresholds past full recall are not considered
    return int(curve.fp[full::-1][nearest(curve.tp[full::-1])]) / curve.negatives


def corners(curve: Curve) -> Curve:
    """The curve without thresholds on a straight run, as scikit-learn's ``roc_curve`` drops them unless told not to."""
    bend = (np.diff(curve.fp, 2) != 0) | (np.diff(curve.tp, 2) != 0)
    keep = np.concatenate(([True], bend, [True]))[:curve.tp.size]
    return Curve(curve.threshold[keep], curve.tp[keep], curve.fp[keep])


def trapezoid_precision(curve: Curve) -> float:
    """Area under precision over recall by trapezoids from precision 1 at recall 0; overstates where scores tie."""
    precision = np.concatenate(([1.0], curve.tp / (curve.tp + curve.fp)))
    return float(np.trapezoid(precision, np.concatenate(([0], curve.tp)) / curve.positives))
