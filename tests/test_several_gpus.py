"""A network that several processes train together is the one that a single process trains."""

from __future__ import annotations

import pytest
import torch

from tests import several_ranks
from workflow_scripts.training.parallel import ALONE


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """What two processes found."""
    return several_ranks.together(several_ranks.every_method, tmp_path_factory.mktemp("ranks"))


@pytest.fixture(autouse=True)
def one_thread():
    """As in each of the processes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", several_ranks.CASES)
def test_two_processes_train_as_one(name, pair):
    """Losses, weights, batch norm statistics, queues, theta, prototypes and accuracies; the two ranks to the bit."""
    one = several_ranks.run(name, ALONE)
    first, second = (rank[f"{name}, True"] for rank in pair)
    assert first["losses"] == second["losses"] and first["history"] == second["history"]
    assert len(first["losses"]) == several_ranks.STEPS
    assert first["losses"] == pytest.approx(one["losses"], rel=1e-9, abs=1e-12)
    assert first["state"].keys() == second["state"].keys() == one["state"].keys()
    for key, value in one["state"].items():
        assert torch.equal(first["state"][key], second["state"][key]), key
        torch.testing.assert_close(first["state"][key], value, rtol=1e-6, atol=1e-9, msg=lambda m, k=key: f"{k}: {m}")


@pytest.mark.parametrize("name", several_ranks.CASES)
def test_in_single_precision_the_first_ten_losses_are_equal_too(name, pair):
    """With a small learning rate: rounding grows with each step, in one process as in two."""
    one = several_ranks.run(name, ALONE, exact=False)
    first, second = (rank[f"{name}, False"] for rank in pair)
    assert first["losses"] == second["losses"]
    assert all(torch.equal(first["state"][key], second["state"][key]) for key in one["state"])
    assert first["losses"][:10] == pytest.approx(one["losses"][:10], rel=1e-5, abs=1e-5)
