"""A user's network: what is tried before anything is trained or scored, and what is taken as it comes."""

from __future__ import annotations

import json
import random
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tests import typed
from workflow_scripts.core.errors import OODError
from workflow_scripts.methods import cross_entropy
from workflow_scripts.models import own
from workflow_scripts.stages import import_weights
from workflow_scripts.training.loop import Images, Training

X = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Base(nn.Module):
    """What the modules below change."""

    def __init__(self, classes: int = 3, norm: nn.Module | None = None):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 4), norm or nn.Identity(), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
                                  nn.Flatten())
        self.fc = nn.Linear(8, classes)

    def forward(self, x):
        return self.fc(self.body(x))


class Dropped(Base):
    def forward(self, x):
        return self.fc(functional.dropout(self.body(x), 0.5))


class Rare(Base):
    """Draws in eval mode, but few passes differ."""

    def forward(self, x):
        h = self.body(x)
        return self.fc(h * 2 if torch.rand(()) < 0.25 else h)


class Stuck(Base):
    def __init__(self, classes=3):
        super().__init__(classes, nn.BatchNorm2d(8))

    def train(self, mode=True):
        return super().train(True)


class Centred(Base):
    def forward(self, x):
        h = self.body(x)
        return self.fc(h - h.mean(0))


class Counting(Base):
    calls = 0

    def forward(self, x):
        self.calls += 1
        return self.fc(self.body(x) * self.calls)


class Headless(Base):
    """Logits that tell nothing yet: the head starts at 0."""

    def __init__(self, classes=3):
        super().__init__(classes)
        nn.init.zeros_(self.fc.weight)

    def forward(self, x):
        return self.fc(functional.dropout(self.body(x), 0.5))


class Half(Base):
    def forward(self, x):
        return super().forward(x).half()


class Whole(Base):
    def forward(self, x):
        return super().forward(x).long()


class Broken(Base):
    def forward(self, x):
        return super().forward(x) / 0


class Named(Base):
    def forward(self, x):
        return {"features": x, "logits": super().forward(x)}


class Attribute(Base):
    def forward(self, x):
        return SimpleNamespace(logits=super().forward(x))


class Pair(Base):
    def forward(self, x):
        return super().forward(x), x


def drawn_by_norm():
    return Base(norm=nn.BatchNorm2d(8, track_running_stats=False))


def lazy():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(3))


def script():
    return torch.jit.script(Base())


def compiled():
    return torch.compile(Base(), backend="eager")


def compiled_in_place():
    module = Base()
    module.compile(backend="eager")
    return module


def parallel():
    return nn.DataParallel(Base())


def compiled_parallel():
    return torch.compile(nn.DataParallel(Base()), backend="eager")


def bfloat16():
    return Base().bfloat16()


def double():
    return Base().double()


def normed():
    return Base(norm=nn.BatchNorm2d(8))


def weight_normed():
    module = Base()
    nn.utils.parametrizations.weight_norm(module.fc)
    return module


class After(Base):
    """Changes its features in place when they have passed the head."""

    def forward(self, x):
        h = self.body[:2](x).mean((2, 3))
        logits = self.fc(h)
        h.relu_()
        return logits


class RareNumpy(Base):
    """Draws in eval mode from another library's generator, and few passes differ."""

    def forward(self, x):
        return self.fc(self.body(x) * (0 if np.random.rand() > 0.75 else 1))  # noqa: NPY002


class RarePython(Base):
    def forward(self, x):
        return self.fc(self.body(x) * (0 if random.random() > 0.75 else 1))


def built(name: str) -> own.Own:
    torch.manual_seed(1)
    return own.build(own.Options(f"{__name__}:{name}"), 3)


REFUSED = [
    ("Dropped", r"in eval mode two passes over the same images give other features \(by .*functional.dropout\(x, p, "),
    ("Headless", "two passes over the same images give other features"),
    ("Rare", "two passes over the same images give other features"),
    ("RareNumpy", "two passes over the same images give other features"),
    ("RarePython", "two passes over the same images give other features"),
    ("Counting", "two passes over the same images give other features"),
    ("Stuck", r"an image alone has other features .*than among others.*it stays in training mode after eval\(\)"),
    ("Centred", "an image alone has other features .*on the batch size; statistics of a batch are for training alone"),
    ("drawn_by_norm", r"batch norm 'body.1' has no running statistics \(track_running_stats=False\)"),
    ("Whole", "forward gave torch.int64, expected logits of a floating-point type"),
    ("Broken", "NaN or infinite logits on images of 16x16"),
    ("Pair", r"forward gave tuple, expected logits \(4, 3\); return them alone, or under the name logits"),
]


@pytest.mark.parametrize("step", ["features", "forward"])
@pytest.mark.parametrize(("name", "message"), REFUSED, ids=[row[0] for row in REFUSED])
def test_a_module_whose_output_is_not_of_the_image_alone_is_refused_at_its_first_pass(name, message, step):
    network = built(name).eval()
    with pytest.raises(OODError, match=message) as error, torch.inference_mode():
        getattr(network, step)(X)
    assert "\n" not in str(error.value) and f"own network {__name__}:{name}" in str(error.value)


@pytest.mark.parametrize("name", ["Centred", "drawn_by_norm"])
def test_equal_images_do_not_hide_that_a_module_reads_its_batch(name):
    with pytest.raises(OODError, match="an image alone has other features"):
        built(name).eval().features(X[:1].expand(16, -1, -1, -1))


@pytest.mark.parametrize(("name", "message"), [
    ("lazy", r"it has layers whose shape is not known yet \(LazyLinear, ...\)"),
    ("script", "it gave a TorchScript module"),
])
def test_a_module_that_cannot_be_taken(name, message):
    with pytest.raises(OODError, match=message):
        built(name)


@pytest.mark.parametrize("name", ["Base", "normed", "Half", "Named", "Attribute", "bfloat16", "double", "compiled",
                                  "compiled_in_place", "parallel", "compiled_parallel"])
def test_what_is_taken_gives_float32_logits_of_the_plain_module(name, capsys):
    network, expected = built(name).eval(), built("normed" if name == "normed" else "Base").eval()
    for theirs, plain in zip(network.parameters(), expected.parameters(), strict=True):
        assert theirs.dtype == torch.float32
        plain.data.copy_(theirs)
    assert network.state_dict().keys() == expected.state_dict().keys()  # no wrapper in the names
    with torch.inference_mode():
        h, z = network.features(X), network(X)
        assert h.dtype == z.dtype == torch.float32 and h.shape == (5, 8)
        torch.testing.assert_close(network.head(h), expected.head(expected.features(X)))
        torch.testing.assert_close(z, expected(X), atol=1e-3, rtol=1e-3)
    said = capsys.readouterr().out
    assert {"Half": "its logits are torch.float16; they are taken as float32",
            "bfloat16": "its weights are bfloat16; float32 is computed with",
            "double": "its weights are float64; float32 is computed with"}.get(name, "") in said


def test_weights_of_such_a_module_are_not_imported(tmp_path: Path, capsys):
    torch.save(Dropped().state_dict(), tmp_path / "weights.pt")
    pixels = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), np.uint8)
    with h5py.File(tmp_path / "pets.train.h5", "w") as file:
        file["images"], file["labels"], file["names"] = pixels, np.arange(6) % 3, np.array([b"a"] * 6)
        file.attrs.update(dataset="pets", split="train", definition="{}", sources="{}", classes='["a", "b", "c"]')
    section = {"network": {"name": "mine", "model": "own", "options": {"factory": f"{__name__}:Dropped"}}}
    with pytest.raises(SystemExit):
        import_weights.main(["--config", json.dumps(section), "--file", str(tmp_path / "weights.pt"), "--classes-from",
                             str(tmp_path / "pets.train.h5"), "--device", "cpu", "--out", str(tmp_path / "out.pt")])
    said = capsys.readouterr().err
    assert "two passes over the same images give other features" in said and said.count("\n") == 1
    assert not (tmp_path / "out.pt").exists()


# -- training -------------------------------------------------------------------------------------------------------

def training(name: str, count: int = 13, **changes: object) -> Training:
    pixels = torch.randint(0, 256, (count, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    recipe = typed.recipe({"normalise": "per_image", "augment": [], "training": {
        "epochs": 1, "batch_size": 4, "lr": 0.1, "schedule": {"name": "constant"}, **changes}})
    return Training(built(name), cross_entropy.build(cross_entropy.Options(), ()),
                    Images(pixels, torch.arange(count) % 3), recipe, 0)


@pytest.mark.parametrize("name", ["Dropped", "Centred", "Pair"])
def test_a_network_is_refused_before_its_first_step(name):
    run = training(name)
    with pytest.raises(OODError, match=f"own network {__name__}:{name}"):
        run.run(report=lambda line: None)
    assert run.done == 0


def test_the_trial_changes_neither_the_mode_nor_a_number(monkeypatch):
    """Dropout draws in training; the same network with and without a trial ends with the same bits."""
    def weights() -> OrderedDict[str, torch.Tensor]:
        run = training("Dropping", 12)
        torch.manual_seed(5)
        run.run(report=lambda line: None)
        assert run.network.training and not run.network.net.body[1].training
        return run.network.state_dict()

    tried = weights()
    monkeypatch.setattr(own.Own, "meet", lambda self, x: None)
    for name, tensor in weights().items():
        assert torch.equal(tensor, tried[name]), name


class Dropping(Base):
    """Dropout as it should be, and a batch norm that is frozen."""

    def __init__(self, classes=3):
        super().__init__(classes, nn.BatchNorm2d(8))

    def train(self, mode=True):
        super().train(mode)
        self.body[1].eval()
        return self

    def forward(self, x):
        return self.fc(functional.dropout(self.body(x), 0.5, self.training))


def test_features_are_what_entered_the_head():
    network = built("After").eval()
    with torch.no_grad():
        assert torch.allclose(network.head(network.features(X)), network(X), atol=1e-6)


def test_an_order_of_classes_cannot_be_brought_into_a_parametrized_head():
    state = weight_normed().state_dict()
    options = own.Options(factory=f"{__name__}:weight_normed", classes=("c", "b", "a"))
    with pytest.raises(OODError, match=r"the head 'fc' has no plain weight to bring into it, but .*parametrizations"):
        own.take_in(options, state, ["a", "b", "c"], "f.pt")
    own.take_in(options, state, ["c", "b", "a"], "f.pt")
