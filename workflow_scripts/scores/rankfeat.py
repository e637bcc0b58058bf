"""RankFeat: energy without the largest singular component of the feature maps (Song et al., NeurIPS 2022).

The maps of a stage are a matrix X (channels, places); its rank-1 approximation s_1 u_1 v_1^T is subtracted. The largest
right singular vector is the last eigenvector of X^T X, or of X X^T where there are fewer channels than places: no
singular value decomposition of the maps. With ``blocks: both`` the logits of the last stage so changed, and those of
the stage before it so changed and passed on, are averaged, as in the paper, for which the network runs twice; score =
their energy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores.arrays import logsumexp
from workflow_scripts.scores.base import Known

SPEC = ScoreSpec(family="shaped features", needs={"network"}, space={"blocks": ("both", "last")})


@dataclass(frozen=True)
class Options:
    blocks: Literal["both", "last"] = "both"
    """The last two stages as in the paper, or the last one alone."""


def leading(maps: Tensor) -> Tensor:
    """The rank-1 approximation of each image's maps. (N, C, H, W) -> (N, C, H, W)."""
    x = maps.flatten(2)
    if x.shape[2] <= x.shape[1]:
        v = torch.linalg.eigh(x.mT @ x)[1][:, :, -1:]  # (N, places, 1)
        return ((x @ v) @ v.mT).view_as(maps)
    u = torch.linalg.eigh(x @ x.mT)[1][:, :, -1:]
    return (u @ (u.mT @ x)).view_as(maps)


def logits(network: nn.Module, maps: Tensor) -> Tensor:
    """Of the last maps without their largest component. (N, D, h, w) -> (N, K)."""
    return network.head((maps - leading(maps)).mean(dim=(2, 3)))


def score(options: Options, known: Known, state: None, network: nn.Module, images: Tensor) -> Tensor:
    """Energy of what is left. images (N, 3, H, W) -> (N,) float64.

    Raises:
        OODError: the network does not tell its stages apart.
    """
    return scores([options], known, [state], network, images)[0]


def scores(points: Sequence[Options], known: Known, states: Sequence[None], network: nn.Module,
           images: Tensor) -> Tensor:
    """Those of several options, (P, N): two forward passes, or one where the last stage is all that is asked for."""
    with torch.no_grad():
        count = 0
        for stage in network.stages(images):
            maps, count = stage, count + 1
        found = {"last": logits(network, maps)}
        if any(options.blocks == "both" for options in points):
            if count < 2:
                raise OODError("rankfeat.blocks: the network does not tell its stages apart, so that the last but one "
                               "is not known; choose 'last'")
            for number, stage in enumerate(network.stages(images)):
                maps = stage
                if number == count - 2:
                    stage -= leading(stage)  # in place: the generator goes on with it
            found["both"] = (found["last"] + network.head(maps.mean(dim=(2, 3)))) / 2
        return torch.stack([logsumexp(found[options.blocks].double()) for options in points])
