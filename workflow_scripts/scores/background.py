"""The background output of a network with K + 1 outputs as a score (DFB, MM 2024): sign times its logit over T.

The output was trained to be large where ID train images show their background, so an image whose background is like
theirs has a large one: ``sign: plus``. The paper's formula could not be retrieved: form, T and sign are options. With
``sign: auto`` ID train images must score higher, on average, than the same images cut into cells that are put together
in random order. These have an ID background by construction, so their score tells of a lost foreground, not of another
background.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Gt

from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores.arrays import float64, logsumexp, namespace
from workflow_scripts.scores.base import Batch, Known

SPEC = ScoreSpec(family="background",
                 needs={"background", "logits", "train_background", "train_logits", "shuffled"}, joined=False)


@dataclass(frozen=True)
class Options:
    form: Literal["logit", "log_softmax", "contrast"] = "logit"
    """b / T for the background's logit b; its log-softmax over all K + 1 outputs; or b / T minus the logsumexp of the K
    foreground logits (over T)."""
    temperature: Annotated[float, Gt(0)] = 1.0
    """T."""
    sign: Literal["plus", "minus", "auto"] = "plus"
    """`plus`: more of the ID background is more in-distribution; `minus`: less is; `auto`: decided from ID train images
    against jigsaws of them."""


def needs(options: Options) -> frozenset[str]:
    """A sign that is given needs no train images."""
    return SPEC.needs if options.sign == "auto" else SPEC.needs - {"train_background", "train_logits", "shuffled"}


def values(options: Options, batch: Batch) -> Any:
    """The score before its sign. -> (N,) float64."""
    b = float64(batch.background) / options.temperature
    if options.form == "logit":
        return b
    others = logsumexp(float64(batch.logits) / options.temperature)
    if options.form == "contrast":
        return b - others
    xp = namespace(b)
    return b - xp.maximum(b, others) - xp.log1p(xp.exp(-xp.abs(b - others)))


def fit(options: Options, known: Known) -> float:
    """The sign, 1 or -1."""
    if options.sign != "auto":
        return 1.0 if options.sign == "plus" else -1.0
    xp = namespace(known.train_background)
    train = Batch(logits=known.train_logits[...], background=known.train_background)
    gap = xp.mean(values(options, train)) - xp.mean(values(options, known.shuffled))
    return 1.0 if float(gap) >= 0 else -1.0


def score(options: Options, known: Known, state: float, batch: Batch) -> Any:
    """background (N,), logits (N, K) -> (N,) float64."""
    return state * values(options, batch)
