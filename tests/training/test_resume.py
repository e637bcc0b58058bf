"""A training that was stopped goes on as if it had not been."""

from __future__ import annotations

import signal

import pytest
import torch

from tests import typed
from tests.methods.test_resample import RECIPE, pool, wide
from tests.training.test_training import images
from workflow_scripts.core.errors import OODError
from workflow_scripts.methods import (
    background,
    cross_entropy,
    goe,
    ish,
    logitnorm,
    mixoe,
    npos,
    resample,
    rotpred,
    t2fnorm,
    vos,
)
from workflow_scripts.networks.architecture import Network
from workflow_scripts.training import job
from workflow_scripts.training.loop import Training
from workflow_scripts.training.resume import Resume


def state(network: torch.nn.Module, method: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {**network.state_dict(), **{f"method.{k}": v for k, v in method.state_dict().items()}}


METHODS = {
    "cross_entropy": lambda: cross_entropy.build(cross_entropy.Options(), ()),
    "goe": lambda: goe.build(goe.Options(k=2), ()),
    "background": lambda: background.build(background.Options(background_bn="train"), ()),
    "resample": lambda: resample.build(resample.Options(), ()),
    "npos": lambda: npos.build(npos.Options(start=1, queue=20, K=5, select=8, sample_from=12, keep=3), ()),
    "vos": lambda: vos.build(vos.Options(start=1, queue=20, sample_from=50), ()),
    "logitnorm": lambda: logitnorm.build(logitnorm.Options(), ()),
    "t2fnorm": lambda: t2fnorm.build(t2fnorm.Options(), ()),
    "ish": lambda: ish.build(ish.Options(), ()),
    "mixoe": lambda: mixoe.build(mixoe.Options(mix="cutmix"), ()),
    "rotpred": lambda: rotpred.build(rotpred.Options(), ()),
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("stop", [1, 6, 11])
def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(name, stop, tmp_path, capsys):
    """Stopped by a signal, in the middle of an epoch and at its end; dropout and validation included."""
    recipe = RECIPE | {"validation": {"count": 10, "seed": 0, "list": None}, "keep": "best",
                       "outliers": {"batch_size": 8, "order": "shuffled"}}

    def start():
        method, network = METHODS[name](), wide()
        return Training(network, method, images(), typed.recipe(recipe), 0, pool()), network, method

    torch.manual_seed(5)
    training, network, method = start()
    expected_history = training.run(report=lambda line: None)
    expected = state(network, method)

    torch.manual_seed(5)
    training, network, method = start()
    resume = Resume(tmp_path / "out.pt", {"run": 1}, minutes=60)
    resume.catch_signals()
    step = training._step
    training._step = lambda batch: (step(batch), signal.raise_signal(signal.SIGTERM) if training.done == stop else None)
    try:
        with pytest.raises(OODError, match=r"stopped by SIGTERM after epoch .*out.pt.resume, run again"):
            training.run(report=lambda line: None, resume=resume)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    assert training.done == stop

    torch.manual_seed(99)
    training, network, method = start()
    history = training.run(report=lambda line: None, resume=Resume(tmp_path / "out.pt", {"run": 1}, minutes=60))
    assert "going on after epoch" in capsys.readouterr().out and history == expected_history
    found = state(network, method)
    assert found.keys() == expected.keys() and all(torch.equal(found[k], expected[k]) for k in found)


def test_progress_of_another_run_or_a_broken_file_is_named_and_not_continued(tmp_path, capsys):
    resume = Resume(tmp_path / "out.pt", {"code": 1, "seed": 0}, minutes=0)
    assert resume.due() and resume.load() is None
    resume.save({"epoch": 1, "step": 2})
    assert Resume(tmp_path / "out.pt", {"code": 1, "seed": 0}, 10).load() == {"epoch": 1, "step": 2}
    assert Resume(tmp_path / "out.pt", {"code": 2, "seed": 0}, 10).load() is None
    assert "is of another run (code changed)" in capsys.readouterr().out
    resume.path.write_bytes(resume.path.read_bytes()[:100])
    assert resume.load() is None and "cannot be read" in capsys.readouterr().out
    resume.done()
    assert not resume.path.exists()


def test_another_network_of_the_user_is_another_run(tmp_path):
    """What tells one run from another has the code of a network of one's own."""
    found = []
    for number, width in enumerate((8, 9, 9)):
        file = tmp_path / str(number) / "net.py"
        file.parent.mkdir()
        file.write_text(f"import torch\n\n\ndef make(num_classes):\n    return torch.nn.Linear({width}, num_classes)\n")
        network = Network.of(name="mine", model="own", options={"factory": f"{file}:make"})
        code = job.code("stages.train_network", network, "cross_entropy")
        found.append([value for name, value in code.items() if name.endswith("net.py")])
    assert len(found[0]) == 1 and found[0] != found[1] == found[2]
