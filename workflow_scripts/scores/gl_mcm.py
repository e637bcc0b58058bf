"""GL-MCM: maximum concept matching of a CLIP image as a whole and at its best place (Miyai et al., IJCV 2025).

score = max_k softmax(cos(x, t_k) / T) + lambda max_{i, k} softmax(cos(x_i, t_k) / T), over the class texts t, with x
the embedding of the image and x_i those of its patches, for which each token attends to itself alone in the last block
(``ClipViT.places``). ``mcm`` is the first part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores.base import Known

SPEC = ScoreSpec(family="vision-language", needs={"network"}, space={"T": (0.01, 0.1, 1.0), "lam": (0.5, 1.0, 1.5)})


@dataclass(frozen=True)
class Options:
    T: Annotated[float, Gt(0)] = 1.0
    """Divides the cosines; 1 in the paper."""
    lam: Annotated[float, Ge(0)] = 1.0
    """Weight of the best place (lambda); 1 in the paper."""


def largest(options: Options, head: nn.Linear, embeddings: Tensor) -> Tensor:
    """Largest softmax probability. (..., D) -> (...) float64."""
    cosines = functional.normalize(embeddings.double(), dim=-1) @ functional.normalize(head.weight.double(), dim=-1).T
    return (cosines / options.T).softmax(dim=-1).amax(dim=-1)


def score(options: Options, known: Known, state: None, network: nn.Module, images: Tensor) -> Tensor:
    """Global and local concept matching. images (N, 3, H, W) -> (N,) float64, in 0..1 + lambda.

    Raises:
        OODError: the network has no embeddings of places.
    """
    return scores([options], known, [state], network, images)[0]


def scores(points: Sequence[Options], known: Known, states: Sequence[None], network: nn.Module,
           images: Tensor) -> Tensor:
    """Those of several options, (P, N), from one forward pass."""
    if not hasattr(network, "places"):
        raise OODError(f"score 'gl_mcm' reads the embeddings of a CLIP image's patches, which {type(network).__name__} "
                       "does not have; use it with the model clip_vit, or take it out of the scores")
    with torch.no_grad():
        whole, places = network.places(images)
        return torch.stack([largest(options, network.head, whole)
                            + options.lam * largest(options, network.head, places).amax(dim=1) for options in points])
