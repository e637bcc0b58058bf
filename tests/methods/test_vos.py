"""VOS: its tails have the distribution of the plain rule, and it trains."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp

from tests import typed
from tests.methods.test_npos import TWO
from tests.training.test_training import images, small
from workflow_scripts.core.errors import OODError
from workflow_scripts.methods import vos
from workflow_scripts.training.loop import Training

ONE = TWO | {"views": 1}


@pytest.mark.parametrize("keep", [1, 3])
def test_the_longest_of_many_draws_have_their_distribution(keep):
    generator = torch.Generator().manual_seed(0)
    found = vos.farthest(2000, 6, 200, keep, generator)
    drawn = torch.randn(2000, 200, 6, generator=generator)
    order = drawn.norm(dim=2).topk(keep, dim=1).indices
    expected = drawn.gather(1, order[..., None].expand(-1, -1, 6))
    for place in range(keep):
        lengths = [x[:, place].norm(dim=1).numpy() for x in (found, expected)]
        assert ks_2samp(*lengths).pvalue > 1e-3
        assert ks_2samp(found[:, place, 0], expected[:, place, 0]).pvalue > 1e-3
    assert (np.diff(found.norm(dim=2).numpy(), axis=1) <= 0).all()


def test_outliers_lie_around_the_class_means_by_the_shared_covariance():
    method = vos.build(vos.Options(queue=400, sample_from=1, keep=1), ())
    method.setup(small(), None)
    generator = torch.Generator().manual_seed(0)
    spread = torch.randn(32, 32, generator=generator) / 6
    means = 3 * torch.randn(3, 32, generator=generator)
    rows = means[:, None] + torch.randn(3, 400, 32, generator=generator) @ spread
    method.queues.push(rows.flatten(0, 1), torch.arange(3).repeat_interleave(400))

    class Step:
        seed, epoch = 0, 0

    found = []
    for step in range(2000):
        Step.step = step
        found.append(method.synthesise(Step))
    found = torch.stack(found) - rows.mean(1)
    centred = (rows - rows.mean(1, keepdim=True)).flatten(0, 1)
    torch.testing.assert_close(found.mean(0), torch.zeros(3, 32), rtol=0, atol=0.12)
    flat = found.flatten(0, 1)
    torch.testing.assert_close(flat.T @ flat / len(flat), centred.T @ centred / len(centred), rtol=0, atol=0.12)


def test_it_trains_and_the_outliers_take_part():
    def run(weight):
        torch.manual_seed(0)
        method = vos.build(vos.Options(start=2, queue=20, sample_from=50, weight=weight), ())
        network = small()
        return Training(network, method, images(), typed.recipe(ONE), 0).run(report=lambda line: None)

    light, heavy = run(0.0), run(1.0)
    assert light[1] == heavy[1] and heavy[2]["loss"] > light[2]["loss"]
    assert heavy[-1]["accuracy"] > 0.9
    with pytest.raises(OODError, match=r"options.start: outliers come after epoch 9, but training.epochs is 5"):
        Training(small(), vos.build(vos.Options(start=9), ()), images(), typed.recipe(ONE), 0)
