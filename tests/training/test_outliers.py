"""Outliers beside the ID images, held-out images, the epoch that is kept, and the switches of the G-OE release."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from tests import typed
from tests.outlier_data import CPU, RECIPE
from workflow_scripts.core.errors import OODError
from workflow_scripts.data.images.store import write_store
from workflow_scripts.data.reading import Images as Raw
from workflow_scripts.data.reading import array_blocks, unlabelled
from workflow_scripts.methods import cross_entropy, goe, outlier_exposure
from workflow_scripts.methods.base import Method
from workflow_scripts.models import resnet_cifar
from workflow_scripts.networks import checkpoint
from workflow_scripts.stages import train_network as stage
from workflow_scripts.training import validation
from workflow_scripts.training.loop import Images, Training, batches
from workflow_scripts.training.outliers import Outliers


def data(count: int = 64, classes: int = 4) -> Images:
    """Classes told apart by the bright row; outliers below are noise."""
    labels = torch.arange(count) % classes
    pixels = torch.randint(0, 60, (count, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels[torch.arange(count), 2 * labels] = 220
    return Images(pixels, labels)


def noise(count: int = 40, size: int = 8) -> Outliers:
    pixels = torch.randint(0, 256, (count, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return Outliers(pixels, size, "shuffled", 0, CPU, "noise")


def small() -> torch.nn.Module:
    torch.manual_seed(0)
    return resnet_cifar.build(resnet_cifar.Options(blocks=(1, 1, 1, 1), width=4), 4)


def run(method: Method, recipe: dict, network=None, **more) -> tuple[torch.nn.Module, list[dict]]:
    network = network or small()
    steps = more.pop("steps", None)
    training = Training(network, method, data(), typed.recipe(recipe), 0, **more)
    return network, training.run(steps, report=lambda line: None)


def test_each_batch_has_its_outliers_and_the_id_images_end_the_epoch():
    steps = list(batches(data(), typed.recipe(RECIPE), 0, 0, outliers=noise()))
    assert [len(b.images) for b in steps] == [16] * 4 and [len(b.outliers) for b in steps] == [8] * 4
    assert len(torch.cat([b.outlier_index for b in steps]).unique()) == 32
    assert next(batches(data(), typed.recipe(RECIPE), 0, 0)).outliers is None


def test_outliers_lose_their_confidence():
    recipe = RECIPE | {"training": RECIPE["training"] | {"epochs": 6},
                       "normalise": {"mean": [0.5] * 3, "std": [0.25] * 3}}
    top = {}
    for name, method in (("plain", cross_entropy.build(cross_entropy.Options(), ())),
                         ("oe", outlier_exposure.build(outlier_exposure.Options(), ())),
                         ("goe", goe.build(goe.Options(filter="top", k=1), ()))):
        network, history = run(method, recipe, outliers=noise())
        assert history[-1]["loss"] < history[0]["loss"] and history[-1]["accuracy"] > 0.9
        with torch.no_grad():
            x = next(noise().batches(typed.recipe(recipe), 0))[0]
            top[name] = float(network.eval()(x).softmax(1).amax(1).mean())
    assert max(top["oe"], top["goe"]) < top["plain"] - 0.1


def test_a_method_without_its_outliers_is_refused():
    with pytest.raises(OODError, match="outliers: this method trains with outliers, but the recipe names none"):
        run(goe.build(goe.Options(), ()), RECIPE)
    with pytest.raises(OODError, match=r"options\.k: .* k = 9 .*outliers\.batch_size 8"):
        run(goe.build(goe.Options(filter="top", k=9), ()), RECIPE, outliers=noise())


class Frozen(Method):
    """A loss of one own parameter, with its own learning rate; the network stays in eval mode."""

    def __init__(self):
        super().__init__()
        self.theta = torch.nn.Parameter(torch.zeros(()))
        self.modes: list[bool] = []

    def start_epoch(self, network, epoch):
        network.eval()

    def parameter_groups(self, network):
        own = {"lr": 2.0, "constant": True, "momentum": 0, "nesterov": False, "weight_decay": 0}
        return [*super().parameter_groups(network), {"params": [self.theta], **own}]

    def loss(self, network, batch):
        self.modes.append(network.training)
        logits = network(batch.images)
        return logits.logsumexp(1).mean() * 0 + self.theta, logits


def test_a_method_may_train_its_own_parameters_and_choose_the_mode():
    method = Frozen()
    schedule = {"name": "multistep", "milestones": [1], "gamma": 0.1, "floor": 0.0}
    run(method, RECIPE | {"training": RECIPE["training"] | {"schedule": schedule}})
    assert method.theta.item() == -2.0 * 8  # 2 epochs of 4 steps, the schedule left aside
    assert method.modes == [False] * 8


def test_held_out_images_are_not_trained_on(tmp_path):
    rows, held = validation.hold_out(typed.validation({"count": 10, "seed": 3}), 64)
    assert torch.equal(torch.cat((rows, held)).sort().values, torch.arange(64)) and len(held) == 10
    assert not torch.equal(held, validation.hold_out(typed.validation({"count": 10, "seed": 4}), 64)[1])
    seen = torch.cat([b.index for b in batches(data(), typed.recipe(RECIPE), 0, 0, rows)])
    assert set(seen.tolist()) == set(rows.tolist())
    (tmp_path / "list.txt").write_text("7\n3\n")
    section = {"count": 2, "seed": 0, "list": str(tmp_path / "list.txt")}
    assert validation.hold_out(typed.validation(section), 64)[1].tolist() == [3, 7]


@pytest.mark.parametrize(("text", "message"), [
    ("1\n2\n", r"list\.txt holds 2 numbers, 2 of them distinct, validation\.count is 3"),
    ("1\n2\n2\n", "holds 3 numbers, 2 of them distinct"),
    ("1\n2\n64\n", r"numbers 1\.\.64, the ID set 64 train images"),
    ("1\ntwo\n3\n", "one image number per line"), (None, r"validation\.list: there is no file .*list\.txt"),
])
def test_bad_lists_are_refused(tmp_path, text, message):
    if text:
        (tmp_path / "list.txt").write_text(text)
    with pytest.raises(OODError, match=message):
        validation.hold_out(typed.validation({"count": 3, "list": str(tmp_path / "list.txt")}), 64)
    with pytest.raises(OODError, match=r"validation\.count: 64 of 64 .* leave none"):
        validation.hold_out(typed.validation({"count": 64}), 64)


def test_the_best_epoch_is_kept():
    """The learning rate explodes after the second of four epochs, so the last one is not the best."""
    schedule = {"name": "multistep", "milestones": [2], "gamma": 300, "floor": 0.0}
    recipe = RECIPE | {"validation": {"count": 16, "seed": 0, "list": None},
                       "training": RECIPE["training"] | {"epochs": 4, "schedule": schedule, "weight_decay": 0.0}}
    method = cross_entropy.build(cross_entropy.Options(), ())
    network, history = run(method, recipe | {"keep": "best"})
    values = [row["validation"] for row in history]
    best = values.index(max(values))
    assert best < 3 and values[3] < values[best]
    until = recipe | {"training": recipe["training"] | {"epochs": best + 1}}
    expected, _ = run(method, until)
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(network.state_dict()[name], value, rtol=0, atol=0)
    with pytest.raises(OODError, match="keep: 'best' needs held-out images"):
        run(method, RECIPE | {"keep": "best"})


def test_validation_images_are_augmented_only_as_released(monkeypatch):
    """goe.2g-4."""
    recipe = RECIPE | {"validation": {"count": 16, "seed": 0, "list": None}, "augment": [{"random_crop": 2}]}
    asked = []
    augment = validation.augment
    monkeypatch.setattr(validation, "augment", lambda *args: asked.append(args[2:4]) or augment(*args))
    method = cross_entropy.build(cross_entropy.Options(), ())
    for released, expected in (((), []), (("goe.2g-4",), [(0, 0), (0, 1)])):
        run(method, recipe, released=released)
        assert asked == expected


@pytest.fixture
def stage_inputs(tmp_path):
    """Arguments of the train stage with tiny stores, by seed and released defects; -> the checkpoint it writes."""
    paths = {}
    for name, source, classes in (("id", data(), ("a", "b", "c", "d")), ("pool", noise(), ())):
        pixels = source.pixels.numpy()
        labels = source.labels.numpy() if classes else unlabelled(len(pixels))
        raw = Raw(labels, [str(i) for i in range(len(pixels))], classes, {}, array_blocks(pixels))
        paths[name] = str(tmp_path / f"{name}.h5")
        write_store(paths[name], raw, np.arange(len(pixels)), classes, {"dataset": name, "split": "train"}, lambda x: x)

    def run(seed: int, released: list[str], method: str = "goe") -> dict:
        recipe = RECIPE | {"method": method, "options": {"k": 2} if method == "goe" else {}}
        config = {"network": {"name": "n", "model": "wide_resnet", "options": {"depth": 10, "widen": 1, "width": 4}},
                  "recipe": recipe, "released": released, "steps": 3}
        stage.main(["--config", json.dumps(config), "--data", paths["id"], "--outliers", paths["pool"],
                    "--seed", str(seed), "--device", "cpu", "--threads", "1", "--out", str(tmp_path / "out.pt")])
        return checkpoint.read(tmp_path / "out.pt")

    return run


@pytest.mark.parametrize("method", ["goe", "outlier_exposure", "energy_oe", "cross_entropy"])
def test_stage_and_the_seeds_of_trials(stage_inputs, method):
    """goe.2g-5: as released, all trials have one seed; corrected, each its own."""
    first, second = (stage_inputs(seed, [], method) for seed in (0, 2))
    assert not torch.equal(first["state_dict"]["fc.weight"], second["state_dict"]["fc.weight"])
    shared = [stage_inputs(seed, ["goe.2g-5"], method) for seed in (0, 2)]
    for name, value in shared[0]["state_dict"].items():
        assert torch.equal(value, shared[1]["state_dict"][name])
    assert [content["about"]["seed"] for content in shared] == [0, 2]


def test_stage_reproduces_the_contaminated_baseline(stage_inputs):
    """goe.2g-2: only then the baseline reads the outliers, and only its batch norm does."""
    plain, contaminated = (stage_inputs(0, released, "cross_entropy") for released in ([], ["goe.2g-2"]))
    assert not torch.equal(plain["state_dict"]["bn1.running_mean"], contaminated["state_dict"]["bn1.running_mean"])
