"""A small made-up network with everything a score may need: ReLU features of 5 classes, float64."""

from dataclasses import replace

import numpy as np

from workflow_scripts.scores.base import Batch, BatchNorm, Head, Known, Statistics

CLASSES, WIDTH = 5, 24


def evidence(seed=0, per_class=40, dtype=np.float64):
    """(Known, test Batch of 60 images, train labels); unit 3 is dead, as some are in real networks."""
    rng = np.random.default_rng(seed)
    centres = rng.gamma(1.0, 1.0, (CLASSES, WIDTH))
    labels = rng.permutation(np.repeat(np.arange(CLASSES), per_class))

    def images(centre):
        h = np.maximum(centre + rng.normal(0, 0.7, centre.shape), 0)
        h[:, 3] = 0
        return h.astype(dtype)

    train = images(centres[labels])
    test = images(np.concatenate([centres[rng.integers(0, CLASSES, 40)], rng.gamma(0.7, 1.5, (20, WIDTH))]))
    means = np.stack([train[labels == c].astype(float).mean(0) for c in range(CLASSES)])
    weight = rng.normal(0, 0.4, (CLASSES, WIDTH)) + (means - means.mean(0))  # most images are classified rightly
    head = Head(weight.astype(dtype), rng.normal(0, 0.1, CLASSES).astype(dtype))
    statistics = Statistics(means, np.bincount(labels), train.astype(float).mean(0))
    known = Known(head, BatchNorm(rng.gamma(4, 0.2, WIDTH), rng.normal(0.5, 0.2, WIDTH)), statistics, train,
                  train @ head.weight.T + head.bias, labels)
    more, size = np.random.default_rng(seed + 1), len(train)
    known = replace(known, train_background=more.normal(0, 1, size), train_scores=more.normal(0, 2, (size, 2)),
                    shuffled=Batch(logits=more.normal(0, 1, (30, CLASSES)), background=more.normal(1, 1, 30)))
    return known, Batch(test, test @ head.weight.T + head.bias, more.normal(0, 2, len(test)),
                        more.normal(0, 2, (len(test), 2)))


def run(module, options, known, batch):
    """Fit if there is a fit, then score."""
    return module.score(options, known, module.fit(options, known) if hasattr(module, "fit") else None, batch)
