"""Compiled passes and fused optimisers: what is the same, what is refused, and that nothing falls back unheard."""

from __future__ import annotations

import pytest
import torch

from benchmarks import gpu_checks
from benchmarks import gpu_project as project
from tests import typed
from tests.training.test_precision import Net
from tests.training.test_resume import METHODS, RECIPE, images, pool, state
from tests.training.test_training import plain, small
from workflow_scripts.core.errors import OODError
from workflow_scripts.models import own, resnet_cifar
from workflow_scripts.networks.load import in_bfloat16
from workflow_scripts.training.compiled import compiled
from workflow_scripts.training.loop import Training

CPU = torch.device("cpu")
SHORT = RECIPE | {"outliers": {"batch_size": 8, "order": "shuffled"},
                  "training": RECIPE["training"] | {"epochs": 2, "batch_size": 40, "drop_last": False}}


@pytest.fixture(autouse=True)
def forgotten():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()


def trained(name: str, backend: str = "", rounded: bool = False) -> dict[str, torch.Tensor]:
    """What a training ends with; ``backend``: of the compiler, none for not compiled."""
    torch.manual_seed(5)
    network, method = resnet_cifar.build(resnet_cifar.Options(blocks=(1, 1, 1, 1), width=4), 3), METHODS[name]()
    if rounded:
        in_bfloat16(network)
    if backend:
        compiled(network, "kernels", CPU, backend=backend)
    Training(network, method, images(), typed.recipe(SHORT), 0, pool()).run(report=lambda line: None)
    return state(network, method)


@pytest.mark.parametrize(("name", "rounded"), [("cross_entropy", False), ("cross_entropy", True), ("goe", False),
                                               ("npos", False)])
def test_traced_passes_are_the_networks_own(name, rounded):
    """Run as it was traced, with the last, smaller batch; a method's passes without gradients are not."""
    expected, found = trained(name, rounded=rounded), trained(name, "eager", rounded)
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2  # 96 images in batches of 40


@pytest.mark.slow
def test_inductor_trains_the_same_network():
    expected, found = trained("cross_entropy"), trained("cross_entropy", "inductor")
    for key in expected:
        torch.testing.assert_close(found[key], expected[key], rtol=1e-2, atol=1e-3)


class Asking(Net):
    """A network that looks at its numbers."""

    def forward(self, x):
        return self.last(self.body(x) if x.mean() > 0 else self.body(-x))


def test_a_network_that_cannot_be_compiled_ends_the_training(monkeypatch):
    monkeypatch.setattr(own, "make", lambda options, classes: Asking(classes))
    network = own.build(own.Options("made.by:the_test"), 3)
    compiled(network, "kernels", CPU, backend="eager")
    with pytest.raises(OODError, match=r"^compile: torch cannot compile this network \(.+\); leave compile out$"):
        plain(network).run(report=lambda line: None)


@pytest.mark.parametrize(("how", "processes", "message"), [
    ("graphs", 1, "compile: graphs are recorded on a GPU, and this training is on the CPU; set compile: kernels"),
    ("kernels", 2, "compile: a network that 2 GPUs or processes train together cannot be compiled .* set gpus: 1")])
def test_what_cannot_be_is_said_in_one_line(how, processes, message):
    with pytest.raises(OODError, match=message) as caught:
        compiled(small(), how, CPU, processes)
    assert "\n" not in str(caught.value)


def test_an_optimiser_is_fused_on_a_gpu_alone():
    assert plain(small()).fused is None and plain(small()).optimiser.defaults["fused"] is None


def test_a_fused_optimiser_goes_on_from_first_epochs():
    """torch's fused Adam wants its count of steps beside the weights; on the CPU its numbers are nearly the same."""
    adam = {"epochs": 3, "batch_size": 16, "lr": 0.01, "optimiser": "adam", "schedule": {"name": "constant"}}
    recipe, ends = RECIPE | {"views": 1, "training": adam}, []
    for fused in (None, True):
        first, rest = (plain(small(), recipe) for _ in range(2))
        for training in (first, rest):
            training.fused = fused
            training.optimiser = torch.optim.Adam(training.network.parameters(), 0.01, fused=fused)
        start = first.start(1, lambda line: None)
        rest.run(report=lambda line: None, start=start)
        assert {state["step"].item() for state in rest.optimiser.state.values()} == {18.0}
        ends.append(torch.cat([p.detach().flatten() for p in rest.network.parameters()]))
    torch.testing.assert_close(*ends, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("name", project.names("models"))
def test_every_architecture_is_traced_as_a_whole(name):
    """In bfloat16 too, where some have code of their own."""
    _, options, side = gpu_checks.MODELS[name]
    side = options.get("image", min(side, 64))
    for rounded in (False, True):
        torch._dynamo.reset()
        torch.manual_seed(0)
        network = project.model(name, 4, **options).eval()  # in training mode dropout would draw
        if rounded:
            in_bfloat16(network)
        x = torch.rand(2, 3, side, side)
        expected = network(x)
        compiled(network, "kernels", CPU, backend="eager")
        torch.testing.assert_close(network(x), expected, rtol=0, atol=0)
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1 + rounded
