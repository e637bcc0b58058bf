"""NegLabel: share of the class texts against words that are far from all classes (Jiang et al., ICLR 2024).

Of a CLIP network's ``negatives``, candidate words that its user gives, those are kept whose cosine to the classes is
least, measured by a high percentile over the classes (NegMining). With the kept words dealt at random into groups,

    score = mean over the groups of sum_k exp(cos(x, t_k) / T) / (the same + sum_j exp(cos(x, n_j) / T)),

x the image's embedding, t the class texts and n the words of a group; words that no group of equal size takes are left
out. Here words and classes go through the same prompts (``clip_vit``), where the paper has one, "The nice ...". The
paper's candidates are the nouns and adjectives of WordNet; look at their licence before using them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn
from torch.nn import functional

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores.base import Known

SPEC = ScoreSpec(family="vision-language", needs={"network"}, space={
    "T": (0.01, 0.1, 1.0), "share": (0.05, 0.15, 0.5), "groups": (1, 10, 100)})


@dataclass(frozen=True)
class Options:
    T: Annotated[float, Gt(0)] = 0.01
    """Divides the cosines; 0.01 in the paper."""
    share: Annotated[float, Interval(gt=0, le=1)] = 0.15
    """Share of the candidate words that are kept."""
    percentile: Annotated[float, Interval(ge=0, le=100)] = 95.0
    """Of a word's cosines to the classes, by which it is ranked."""
    groups: Annotated[int, Gt(0)] = 100
    """Groups of words."""
    seed: Annotated[int, Ge(0)] = 0
    """Of the groups."""


def fit(options: Options, known: Known, network: nn.Module, batches: object) -> Tensor:
    """The kept words in their groups; no train image is read. -> (groups, words, D) float64, of length 1.

    Raises:
        OODError: the network has no negative words, or fewer are kept than there are groups.
    """
    if not hasattr(network, "negatives"):
        raise OODError("score 'neglabel' needs words that are no class; give the model clip_vit the option negatives "
                       "and import its weights again, or take 'neglabel' out of the scores")
    words = functional.normalize(network.negatives.double(), dim=1)
    cosines = words @ functional.normalize(network.head.weight.double(), dim=1).T
    near = cosines.quantile(options.percentile / 100, dim=1)
    kept = near.argsort(stable=True)[:round(len(words) * options.share)]
    if len(kept) < options.groups:
        raise OODError(f"neglabel.groups: {options.groups} groups, but of {len(words)} words only {len(kept)} are "
                       "kept; give more words, a larger share or fewer groups")
    order = torch.randperm(len(kept), generator=torch.Generator().manual_seed(options.seed)).to(kept.device)
    size = len(kept) // options.groups
    return words[kept[order[:size * options.groups]]].view(options.groups, size, -1)


def score(options: Options, known: Known, state: Tensor, network: nn.Module, images: Tensor) -> Tensor:
    """Mean share of the classes. images (N, 3, H, W) -> (N,) float64, in 0..1."""
    return scores([options], known, [state], network, images)[0]


def scores(points: Sequence[Options], known: Known, states: Sequence[Tensor], network: nn.Module,
           images: Tensor) -> Tensor:
    """Those of several options, (P, N), from one forward pass."""
    with torch.no_grad():
        x = functional.normalize(network.features(images).double(), dim=1)
        classes = functional.normalize(network.head.weight.double(), dim=1)
        return torch.stack([_score(options, x, classes, state) for options, state in zip(points, states, strict=True)])


def _score(options: Options, x: Tensor, classes: Tensor, words: Tensor) -> Tensor:
    inside = (x @ classes.T / options.T).logsumexp(dim=1, keepdim=True)  # (N, 1)
    outside = (x @ words.flatten(0, 1).T / options.T).view(len(x), *words.shape[:2]).logsumexp(dim=2)
    return torch.sigmoid(inside - outside).mean(dim=1)
