"""HIMPLoS: masked and clipped logits, smoothed by the cosine to a class prototype (Sun et al., arXiv 2310.18104).

With h the penultimate feature, y the class predicted from it and mu_y the mean ID train feature of class y:

- M_c keeps the units whose head weight W_cj is at least the p-th percentile of row c;
- a = min(h * M_y, lambda), z' = W a + b;
- s = cos(mu_y, h), of the raw feature; it scales the logits, bias included;
- score = T logsumexp(s z' / T), or with ``measure: msp`` log max_k softmax(s z' / T)_k.

An all-zero feature has cosine 0 and the energy log K. The ablations are values of the options: *mask only* is
``clip: .inf, cosine: false``; *mask and clip* is ``cosine: false``; *smoothing only* is ``p: 0, clip: .inf``; both
together are the energy score. ``p: 0`` with a clip is ReAct with smoothing. The parts go with other scores, too:
``dice``, ``bats`` and ``line`` have options for them, ``odin_himplos`` is ODIN of these logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Gt, Interval

from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores.arrays import affine, float64, logsumexp, max_log_softmax, namespace, percentile
from workflow_scripts.scores.base import Batch, Head, Known

SPEC = ScoreSpec(family="shaped features", needs={"features", "head", "statistics"}, tune=("p", "clip"), space={
    "p": (0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0),
    "clip": (0.1, 0.5, 0.8, 1.0, 1.5, 2.25, 1e5)})


@dataclass(frozen=True)
class Options:
    p: Annotated[float, Interval(ge=0, le=100)] = 60.0
    """Percentile of a head row below which weights are masked; 60 for CIFAR, 30 for ImageNet."""
    clip: Annotated[float, Gt(0)] = 1.6
    """Upper clip of the features (lambda), in feature units; 1.6 for CIFAR DenseNet, 0.8 for CIFAR ResNet-18 and
    ImageNet ResNet-50, 0.2 for ImageNet MobileNetV2; .inf clips nothing."""
    cosine: bool = True
    """Scale the logits by the cosine to the prototype (smoothing)."""
    temperature: Annotated[float, Gt(0)] = 1.0
    """T; 1 in the paper."""
    measure: Literal["energy", "msp"] = "energy"
    """What is taken of the logits: their energy, or the largest softmax probability (its logarithm)."""


def head_mask(p: float, head: Head) -> Any:
    """Units kept for each class: weights of at least the row's p-th percentile. -> (K, D) bool."""
    weight = float64(head.weight)
    return weight >= percentile(weight, p)[:, None]


def predicted(head: Head, h: Any) -> Any:
    """The class of each feature. h (N, D) -> (N,)."""
    return namespace(h).argmax(affine(h, head), axis=-1)


def cosines(means: Any, classes: Any, h: Any) -> Any:
    """The cosine of each feature to the prototype of a class. means (K, D), classes (N,), h (N, D) -> (N,)."""
    xp = namespace(h)
    prototype = xp.take(float64(means), classes, axis=0)
    lengths = xp.linalg.vector_norm(prototype, axis=-1) * xp.linalg.vector_norm(h, axis=-1)
    return xp.sum(prototype * h, axis=-1) / xp.clip(lengths, min=1e-8)


def logits(head: Head, classes: Any, h: Any, shaped: Any, masks: Any = None, means: Any = None) -> Any:
    """Logits with HIMPLoS's parts. -> (N, K) float64.

    Args:
        head: of the logits; its own, or a sparse one.
        classes: predicted (N,).
        h: features (N, D) that the cosine is of.
        shaped: features (N, D) that the logits are of, e.g. clipped.
        masks: units kept for each class (K, D); ``None``: all.
        means: class means (K, D); ``None``: not smoothed.
    """
    xp = namespace(h)
    if masks is not None:
        shaped = xp.where(xp.take(masks, classes, axis=0), shaped, 0.0)
    z = affine(shaped, head)
    return z if means is None else z * cosines(means, classes, h)[:, None]


def fit(options: Options, known: Known) -> Any:
    """The masks (K, D) bool."""
    return head_mask(options.p, known.head)


def score(options: Options, known: Known, state: Any, batch: Batch) -> Any:
    """The smoothed energy, or probability. features (N, D) -> (N,) float64."""
    h = float64(batch.features)
    means = known.statistics.class_means if options.cosine else None
    clipped = namespace(h).clip(h, max=options.clip)
    z = logits(known.head, predicted(known.head, h), h, clipped, state, means) / options.temperature
    return max_log_softmax(z) if options.measure == "msp" else options.temperature * logsumexp(z)
