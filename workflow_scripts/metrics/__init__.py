"""Metrics of OOD detection and of confidence, in numpy (scipy where a distribution is asked for).

* :mod:`workflow_scripts.metrics.ood` - how well scores tell ID from OOD images: the strict rules this project reports.
* :mod:`workflow_scripts.metrics.confidence` - the ID task: accuracy, calibration, and how well a score ranks errors.
* :mod:`workflow_scripts.metrics.paired` - 95 % intervals of AUROC and FPR95, of a score and of two on the same images.
* :mod:`workflow_scripts.metrics.compat` - the five papers' and OpenOOD's own counting rules, beside the strict ones.

Scores: higher = more in-distribution. Every value is a fraction, never percent.
"""
