"""Energy-based outlier exposure (E-OE): energies pushed apart to two margins (Liu et al., NeurIPS 2020, section 3.3).

E = -logsumexp z. L = CE(ID) + weight * (mean relu(E_in - m_in)^2 + mean relu(m_out - E_out)^2). G-OE compares with it
trained from scratch and with the same margins for both ID sets, where its authors fine-tune and choose margins per set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional

from workflow_scripts.core.specs import MethodSpec
from workflow_scripts.methods.base import Batch, Method

SPEC = MethodSpec(shared_defects=("goe.2g-4", "goe.2g-5"), outliers="always")


@dataclass(frozen=True)
class Options:
    m_in: float = -25.0
    """ID energies above this are penalised."""
    m_out: float = -7.0
    """Outlier energies below this are penalised."""
    weight: Annotated[float, Ge(0)] = 0.1
    """Weight of both penalties; a constant in G-OE's code."""


def energy_gap(id_logits: Tensor, ood_logits: Tensor, m_in: float, m_out: float) -> Tensor:
    """Mean squared hinges of ID and outlier energies. logits (B, K), (M, K) -> scalar."""
    inside, outside = -id_logits.logsumexp(1), -ood_logits.logsumexp(1)
    return (inside - m_in).relu().square().mean() + (m_out - outside).relu().square().mean()


class EnergyExposure(Method):
    """See the module's docstring."""

    outliers = True

    def __init__(self, options: Options):
        super().__init__()
        self.options = options

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        logits = network(torch.cat((batch.images, batch.outliers)))
        id_logits, ood_logits = logits.split((len(batch.images), len(batch.outliers)))
        gap = energy_gap(id_logits, ood_logits, self.options.m_in, self.options.m_out)
        return functional.cross_entropy(id_logits, batch.labels) + self.options.weight * gap, id_logits


def build(options: Options, released: tuple[str, ...]) -> EnergyExposure:
    return EnergyExposure(options)
