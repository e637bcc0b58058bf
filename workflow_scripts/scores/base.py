"""What a post-hoc score is given, and what it must offer.

A score is one module in this folder. It offers

``SPEC``
    a :class:`~workflow_scripts.core.specs.ScoreSpec`; its field ``needs`` says what the score reads. Whoever runs it
    provides exactly that.
``needs(options) -> frozenset``
    optional; the part of ``SPEC.needs`` that these options read, where that is less. Ask through :func:`needs`.
``Options``
    a frozen standard dataclass: its hyper-parameters, by the names of the paper, each with a docstring.
``fit(options, known) -> state``
    optional; turns ID training evidence into what scoring needs. Never sees a test image.
``score(options, known, state, batch) -> (N,) float64``
    higher = more in-distribution. Pure arithmetic: no files, no global state, no loop over samples.

Scores that do not need the ``network`` are written against the array API through :mod:`workflow_scripts.scores.arrays`:
the same code runs on numpy (no torch is imported) and on CUDA tensors. Scores with ``network`` get a network and images
and offer ``score(options, known, state, network, images)`` on torch tensors instead, and where they learn from ID train
images ``fit(options, known, network, batches)`` with ``batches`` of (inputs, labels), once through the train set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from workflow_scripts.core.errors import OODError


@dataclass(frozen=True)
class Head:
    """The last linear layer: ``weight`` (K, D) and ``bias`` (K,)."""

    weight: Any
    bias: Any


@dataclass(frozen=True)
class BatchNorm:
    """The last batch norm before pooling: scale ``weight`` (gamma) and shift ``bias`` (beta), both (D,)."""

    weight: Any
    bias: Any


@dataclass(frozen=True)
class Statistics:
    """ID train statistics: ``class_means`` (K, D) float64 by ground-truth label, ``counts`` (K,), ``mean`` (D,)."""

    class_means: Any
    counts: Any
    mean: Any


@dataclass(frozen=True)
class Known:
    """All that is known before a test image is seen. Members that a score does not need are ``None``."""

    head: Head | None = None
    batchnorm: BatchNorm | None = None
    statistics: Statistics | None = None
    train_features: Any = None
    train_logits: Any = None
    train_labels: Any = None
    train_background: Any = None
    shuffled: Batch | None = None
    train_scores: Any = None
    input_std: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Batch:
    """Images to score: ``features`` (N, D), ``logits`` (N, K), ``background`` (N,), ``scores`` (N, 2); a member that
    a score does not need is ``None``."""

    features: Any = None
    logits: Any = None
    background: Any = None
    scores: Any = None


def moved(part: Any, move: Any) -> Any:
    """A head, batch norm or statistics, each of its arrays moved to where it is computed with."""
    return type(part)(**{key: move(array) for key, array in vars(part).items()})


def needs(score: Any, options: Any) -> frozenset[str]:
    """What the score module ``score`` reads with these ``options``."""
    narrower = getattr(score, "needs", None)
    return narrower(options) if narrower else score.SPEC.needs


def require(known: Known, kinds: frozenset[str], score: str, network: str) -> None:
    """Refuse a score whose needs this network lacks, naming both.

    Raises:
        OODError: a member of ``known`` that ``kinds`` names is ``None``.
    """
    for need in sorted(kinds - {"logits", "features", "background", "scores", "network"}):
        if getattr(known, need) is None:
            raise OODError(f"score '{score}' needs {need}, which network '{network}' does not have; "
                           f"take '{score}' out of the experiment's scores or choose another network")
