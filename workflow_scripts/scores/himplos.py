"""HIMPLoS: masked and clipped logits, smoothed by the cosine to a class prototype (Sun et al., arXiv 2310.18104).

With h the penultimate feature, y the class predicted from it and mu_y the mean ID train feature of class y:

- M_c keeps the units whose head weight W_cj is at least the p-th percentile of row c;
- a = min(h * M_y, lambda), z' = W a + b;
- s = cos(mu_y, h), of the raw feature; it scales the logits, bias included;
- score = T logsumexp(s z' / T).

An all-zero feature has cosine 0 and the score log K. The ablations are values of the options: *mask only* is
``clip: .inf, cosine: false``; *smoothing only* is ``p: 0, clip: .inf``; both together are the energy score.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Gt, Interval

from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores.arrays import affine, float64, logsumexp, namespace, percentile
from workflow_scripts.scores.base import Batch, Head, Known

SPEC = ScoreSpec(needs={"features", "head", "statistics"}, tune=("p", "clip"))


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
    """T of the energy; 1 in the paper."""


def head_mask(p: float, head: Head) -> Any:
    """Units kept for each class: weights of at least the row's p-th percentile. -> (K, D) bool."""
    weight = float64(head.weight)
    return weight >= percentile(weight, p)[:, None]


def fit(options: Options, known: Known) -> Any:
    """The masks (K, D) bool."""
    return head_mask(options.p, known.head)


def score(options: Options, known: Known, state: Any, batch: Batch) -> Any:
    """The smoothed energy. features (N, D) -> (N,) float64."""
    h = float64(batch.features)
    xp = namespace(h)
    predicted = xp.argmax(affine(h, known.head), axis=-1)  # (N,)
    kept = xp.where(xp.take(state, predicted, axis=0), h, 0.0)
    z = affine(xp.clip(kept, max=options.clip), known.head)  # (N, K)
    if options.cosine:
        prototype = xp.take(float64(known.statistics.class_means), predicted, axis=0)  # (N, D)
        lengths = xp.linalg.vector_norm(prototype, axis=-1) * xp.linalg.vector_norm(h, axis=-1)
        z = z * (xp.sum(prototype * h, axis=-1) / xp.clip(lengths, min=1e-8))[:, None]
    return options.temperature * logsumexp(z / options.temperature)
