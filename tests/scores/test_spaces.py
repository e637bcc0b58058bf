"""The values that scores declare for a search: allowed, and each option of them changes the scores.

A search whose option is read once, when the score is made, chooses among equal scores, as that of DICE in OpenOOD.
"""

from __future__ import annotations

import contextlib
import itertools

import numpy as np
import pytest
import torch

from tests.network_data import images, network
from tests.scores_data import evidence, run
from workflow_scripts.core import plugins
from workflow_scripts.core.errors import OODError
from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.models import clip_vit
from workflow_scripts.scores.base import Known

SPACES = [(name, option) for name in plugins.names("scores") for option in plugins.spec("scores", name).space]
CLIP = ("gl_mcm", "neglabel")
OFF = {("vra", "gamma"): {"low": 10.0}, ("kpca", "gamma"): {"M": 40}, ("kpca", "explained"): {"M": 40},
       ("adascale", "p_max"): {"p_min": 60.0}}
PIXELS, LABELS = images(60, 1)
INPUTS = torch.from_numpy(PIXELS).permute(0, 3, 1, 2) / 63.75 - 2


def clip():
    """A small one with random words."""
    torch.manual_seed(0)
    options = clip_vit.Options(image=16, patch=8, width=64, layers=2, trained=1, embed=24, text_width=64,
                               text_layers=1, negatives=("word",) * 2000)
    net = clip_vit.build(options, 5).eval().requires_grad_(False)
    net.negatives.normal_()
    net.fc.weight.normal_()
    return net


def scores(name, options):
    """Of ID train evidence too small for the largest values, which are refused."""
    module = plugins.load("scores", name)
    options = module.Options(**options)
    if "network" not in module.SPEC.needs:
        return run(module, options, *evidence())
    known, net = Known(train_labels=LABELS), (clip() if name in CLIP else network()).double()
    batches = [(INPUTS.double(), torch.from_numpy(LABELS))]
    state = module.fit(options, known, net, batches) if hasattr(module, "fit") else None
    noise = torch.randn(20, 3, 16, 16, generator=torch.Generator().manual_seed(5))
    return module.score(options, known, state, net, noise.double()).numpy()


@pytest.mark.parametrize(("name", "option"), SPACES)
def test_values_are_allowed(name, option):
    values = plugins.spec("scores", name).space[option]
    for value in values:
        assert getattr(plugins.parse_options("scores", name, {**OFF.get((name, option), {}), option: value}, name),
                       option) == value
    assert len(set(values)) == len(values)


@pytest.mark.parametrize(("name", "option"), SPACES)
def test_each_option_changes_the_scores(name, option):
    found = []
    for value in plugins.spec("scores", name).space[option]:
        try:
            found.append(scores(name, {**OFF.get((name, option), {}), option: value}))
        except (OODError, ValueError) as error:  # of the score, or of the options' own check
            assert option in str(error)
    assert len(found) >= 2, "all but one value were refused"
    assert any(np.abs(one - found[0]).max() > 1e-9 for one in found[1:])


WITH_NETWORK = [name for name in dict.fromkeys(name for name, _ in SPACES)
                if "network" in plugins.spec("scores", name).needs]


@pytest.mark.parametrize("name", WITH_NETWORK)
def test_several_options_in_one_pass_are_the_scores_of_each(name):
    """Of every point of the space, with fewer passes of the network; what is learned is the same for all."""
    module, net = plugins.load("scores", name), (clip() if name in CLIP else network()).double()
    space, points = plugins.spec("scores", name).space, []
    for values in itertools.product(*space.values()):
        with contextlib.suppress(ValueError):
            points.append(module.Options(**dict(zip(space, values, strict=True))))
    known, x = Known(train_labels=LABELS), torch.randn(6, 3, 16, 16, dtype=torch.float64)
    states = [module.fit(options, known, net, [(INPUTS.double(), torch.from_numpy(LABELS))])
              if hasattr(module, "fit") else None for options in points]
    if "train_labels" in module.SPEC.needs:
        torch.testing.assert_close(vars(states[-1]) if hasattr(states[-1], "__dict__") else states[-1],
                                   vars(states[0]) if hasattr(states[0], "__dict__") else states[0])
    passes = []
    first = next(layer for layer in net.modules() if isinstance(layer, torch.nn.Conv2d))
    first.register_forward_hook(lambda *_: passes.append(1))
    together = module.scores(points, known, states, net, x)
    count = len(passes)
    alone = torch.stack([module.score(options, known, state, net, x)
                         for options, state in zip(points, states, strict=True)])
    assert torch.equal(together, alone) and len(alone.unique(dim=0)) > 1
    assert count < len(passes) - count, "the points share no pass of the network"


def test_a_space_of_one_value_is_refused():
    with pytest.raises(OODError, match=r"ScoreSpec\.space\['T'\]: expected at least two different values"):
        ScoreSpec(needs={"logits"}, space={"T": (1.0,)})
