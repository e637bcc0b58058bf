"""NNGuide: energy times the guidance of the nearest ID train features (Park et al., ICCV 2023).

Each feature of the bank has length 1 and is multiplied by the energy of its own logits. The guidance is the mean of the
K largest inner products of the unit feature with the bank; score = guidance times energy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Gt

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores import knn
from workflow_scripts.scores.arrays import float64, logsumexp, namespace, spaced, unit
from workflow_scripts.scores.base import Batch, Known

SPEC = ScoreSpec(family="distance", needs={"features", "logits", "train_features", "train_logits"}, bank="K", space={
    "K": (1, 10, 50, 100, 200, 500, 1000)})


@dataclass(frozen=True)
class Options:
    K: Annotated[int, Gt(0)] = 10
    """How many neighbours guide; 10 for ImageNet in the paper, 100 in OpenOOD."""
    bank: Annotated[int, Gt(0)] = 50_000
    """ID train images in the bank at most, evenly spaced: all of CIFAR; the paper takes 1 % of ImageNet, 12,811."""


def fit(options: Options, known: Known) -> Any:
    """The bank: unit features times their energies, in the features' precision. -> (M, D).

    Raises:
        OODError: K is larger than the bank.
    """
    features, logits = (spaced(part, options.bank) for part in (known.train_features, known.train_logits))
    size = features.shape[0]
    if size < options.K:
        raise OODError(f"nnguide.K: {options.K} neighbours were asked for, but the bank holds only {size} ID train "
                       "features; choose a smaller K or a larger bank")
    energy = namespace(features).astype(logsumexp(float64(logits)), features.dtype, copy=False)
    return unit(features) * energy[:, None]


def score(options: Options, known: Known, state: Any, batch: Batch) -> Any:
    """Guided energy. features (N, D) and logits (N, K) -> (N,) float64."""
    xp = namespace(batch.features)
    query = xp.astype(unit(batch.features), state.dtype, copy=False)
    parts = ((start, state[start:start + knn.BANK, :]) for start in range(0, state.shape[0], knn.BANK))
    products, _ = knn.strongest(query, parts, options.K)
    return xp.mean(float64(products), axis=-1) * logsumexp(float64(batch.logits))
