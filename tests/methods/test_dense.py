"""Schedule, mixup, pseudo-masks in the loop, dense training and its conversion, background score and fusion."""

from __future__ import annotations

import json
import signal
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from tests import typed
from tests.network_data import images, write_store
from workflow_scripts.core import plugins
from workflow_scripts.core.errors import OODError
from workflow_scripts.data.images.augment import augment, augment_masks, resize_masks
from workflow_scripts.methods import dense, mixup
from workflow_scripts.methods.base import Batch, Sizes
from workflow_scripts.models import resnet_gn
from workflow_scripts.networks import checkpoint
from workflow_scripts.networks.load import head_name, split_background, start_from, trained
from workflow_scripts.scores import background, energy, fusion
from workflow_scripts.scores import base as scores
from workflow_scripts.scores.base import Known
from workflow_scripts.stages import extract_features as features
from workflow_scripts.stages import fuse_scores as fuse
from workflow_scripts.stages import score_sets as score
from workflow_scripts.stages import train_network as train
from workflow_scripts.training.loop import Images, Training, batches
from workflow_scripts.training.resume import Resume
from workflow_scripts.training.segmentation import segmentation

SECTION = {"name": "small", "model": "resnet_gn", "options": {"blocks": (1, 1), "width": 8, "groups": 4}}
RECIPE = {
    "normalise": {"mean": [0.5] * 3, "std": [0.5] * 3}, "augment": [{"random_crop": 2}], "masks": True,
    "training": {"epochs": None, "batch_size": 16, "lr": 0.3, "momentum": 0.9, "nesterov": True, "weight_decay": 0.0,
                 "drop_last": True, "schedule": {"name": "bit", "steps": [4, 30, 40]}},
}


@pytest.fixture(scope="module")
def release(golden):
    return dict(np.load(golden / "dfb.npz"))


# ---- end and mixup ---------------------------------------------------------------------------------------------------

def test_the_last_step_of_the_schedule_ends_the_training():
    training = start(mixup.build(mixup.Options(), ()))
    assert training.epochs == 7 and training.per_epoch == 6
    history = training.run(report=lambda line: None)
    assert training.done == 40 and len(history) == 7
    assert [row["lr"] for row in history][-1] == pytest.approx(0.03)  # after one milestone
    short = start(mixup.build(mixup.Options(), ()))
    short.run(3, report=lambda line: None)
    assert short.done == 3


def batch(count: int = 8, step: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(1)
    return Batch(torch.rand(count, 3, 16, 16, generator=generator), torch.arange(count) % 3, torch.arange(count), 0, 0,
                 step, masks=torch.randint(0, 4, (count, 16, 16), generator=generator))


def test_mixup_mixes_images_and_losses_with_one_lambda():
    class Probe(torch.nn.Module):
        def forward(self, x):
            self.seen = x
            return x[:, :, 0, :3].sum(1)

    network, method, given = Probe(), mixup.build(mixup.Options(alpha=0.5), ()), batch()
    loss, logits = method.loss(network, given)
    lam, other = mixup.mixing(given, 0.5)
    assert 0 < lam < 1 and sorted(other.tolist()) == list(range(8))
    torch.testing.assert_close(network.seen, lam * given.images + (1 - lam) * given.images[other])
    expected = lam * functional.cross_entropy(logits, given.labels) + (1 - lam) * functional.cross_entropy(
        logits, given.labels[other])
    torch.testing.assert_close(loss, expected)
    assert mixup.mixing(batch(step=1), 0.5)[0] != lam
    rule = mixup.build(mixup.Options(), ())
    for count, alpha in ((19_999, 0.0), (20_000, 0.1)):
        rule.setup(network, Sizes(0, 1, 1, count, torch.device("cpu")))
        assert rule.alpha == alpha


# ---- pseudo-masks beside images --------------------------------------------------------------------------------------

@pytest.mark.parametrize("steps", [
    [{"random_crop": 3}], [{"horizontal_flip": 0.5}], [{"random_crop": {"size": 12}}, {"horizontal_flip": 0.5}],
    [{"color_jitter": {"brightness": 0.4, "contrast": 0, "saturation": 0, "hue": 0}}, {"random_crop": 2}]])
def test_pseudo_masks_move_with_their_images(steps):
    """Where each pixel carries its own label, the label of every pixel is found again after the changes."""
    labels = torch.randint(1, 200, (40, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels = labels[..., None].repeat(1, 1, 1, 3)
    index = torch.arange(40)
    moved = augment_masks(labels, typed.steps(steps), 3, 5, index)
    if any("color_jitter" in step for step in steps):
        steps = [{"color_jitter": {"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0}}, *steps[1:]]
        assert torch.equal(augment(pixels, typed.steps(steps), 3, 5, index)[..., 0] > 0, moved > 0)
        return
    assert torch.equal(augment(pixels, typed.steps(steps), 3, 5, index)[..., 0], moved)
    size = 12 if steps[0].get("random_crop") == {"size": 12} else 16
    assert moved.shape == (40, size, size) and not torch.equal(moved, labels[:, :size, :size])


def test_pseudo_masks_are_not_mixed():
    with pytest.raises(OODError, match="'random_resized_crop' cannot be applied to pseudo-masks"):
        augment_masks(torch.zeros(1, 5, 5).long(), typed.steps([{"random_resized_crop": {"size": 3}}]), 0, 0,
                      torch.zeros(1).long())


def test_pseudo_masks_are_enlarged_as_pil_does():
    small = torch.randint(0, 9, (2, 128, 128), dtype=torch.uint8)
    expected = np.stack([np.asarray(Image.fromarray(m).resize((160, 160), Image.Resampling.NEAREST))
                         for m in small.numpy()])
    # places 2, 7, 12, ... fall exactly between two labels, where PIL follows its rounding
    inside = np.flatnonzero(np.arange(160) % 5 != 2)
    found = resize_masks(small, 160, 160).numpy()
    assert np.array_equal(found[:, inside][:, :, inside], expected[:, inside][:, :, inside])


# ---- dense training --------------------------------------------------------------------------------------------------

def squares(count: int = 96) -> Images:
    """A bright square at a random place, its colour the class; the pseudo-mask is the square."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 40, (count, 16, 16, 3), dtype=np.uint8)
    masks = np.zeros((count, 16, 16), np.uint8)
    labels = np.arange(count) % 3
    for i, (top, left) in enumerate(rng.integers(0, 9, (count, 2))):
        pixels[i, top:top + 7, left:left + 7, labels[i]] += 200
        masks[i, top:top + 7, left:left + 7] = labels[i] + 1
    return Images(torch.from_numpy(pixels), torch.from_numpy(labels), torch.from_numpy(masks))


def small(outputs: int = 3) -> torch.nn.Module:
    torch.manual_seed(0)
    return resnet_gn.build(resnet_gn.Options(blocks=(1, 1), width=8), outputs)


def start(method, recipe: dict = RECIPE) -> Training:
    return Training(small(4 if isinstance(method, dense.Dense) else 3), method, squares(), typed.recipe(recipe), 0)


@pytest.mark.parametrize("alpha", [0.0, 0.4])
def test_dense_training_finds_the_squares(alpha):
    longer = RECIPE["training"] | {"schedule": {"name": "bit", "steps": [10, 160, 200]}}
    recipe = RECIPE | {"training": longer, "validation": {"count": 24, "seed": 0, "list": None}}
    training = start(dense.build(dense.Options(mixup=alpha), ()), recipe)
    training.network.eval()
    before = segmentation(training.network, training.data, training.held, typed.normalise(recipe["normalise"]))
    history = training.run(report=lambda line: None)
    assert before["pixel_accuracy"] < history[-1]["pixel_accuracy"] and history[-1]["miou"] > before["miou"] + 0.2
    assert {"epoch", "loss", "accuracy", "lr", "validation", "pixel_accuracy", "miou"} == history[-1].keys()


@pytest.mark.parametrize("build", [lambda: mixup.build(mixup.Options(alpha=0.3), ()),
                                   lambda: dense.build(dense.Options(mixup=0.3), ())])
@pytest.mark.parametrize("stop", [2, 6])
def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(build, stop, tmp_path):
    short = RECIPE | {"training": RECIPE["training"] | {"schedule": {"name": "bit", "steps": [2, 6, 9]}}}
    whole = start(build(), short)
    history = whole.run(report=lambda line: None)
    stopped = start(build(), short)
    resume = Resume(tmp_path / "out.pt", {}, minutes=60)
    step = stopped._step

    def interrupted(batch: Batch) -> None:
        step(batch)
        resume.stopped_by = signal.SIGTERM if stopped.done == stop else None

    stopped._step = interrupted
    with pytest.raises(OODError, match="stopped by SIGTERM"):
        stopped.run(report=lambda line: None, resume=resume)
    again = start(build(), short)
    assert again.run(report=lambda line: None, resume=Resume(tmp_path / "out.pt", {}, 60)) == history
    expected = whole.network.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.network.state_dict().items())


def test_the_loss_is_the_pixels_cross_entropy():
    network, given = small(4), batch()
    torch.nn.init.normal_(network.fc.weight)
    loss, logits = dense.build(dense.Options(), ()).loss(network, given)
    enlarged = functional.interpolate(network.dense(given.images), (16, 16), mode="bilinear", align_corners=True)
    picked = enlarged.log_softmax(1).gather(1, given.masks[:, None])
    torch.testing.assert_close(loss, -picked.mean())
    torch.testing.assert_close(logits, network(given.images)[:, 1:], rtol=1e-4, atol=1e-5)


def test_batches_hold_pseudo_masks_of_the_images_size():
    data = squares()
    coarse = Images(data.pixels, data.labels, data.masks[:, ::2, ::2].contiguous())
    found = next(batches(coarse, typed.recipe(RECIPE), 0, 0))
    assert found.masks.shape == (16, 16, 16) and found.masks.dtype == torch.int64
    bright = (found.images.amax(1) > 0.4)
    assert (bright == (found.masks > 0)).float().mean() > 0.85
    assert next(batches(Images(data.pixels, data.labels), typed.recipe(RECIPE), 0, 0)).masks is None


def test_a_recipe_without_pseudo_masks_is_refused():
    with pytest.raises(OODError, match="masks: method dense trains on pseudo-masks"):
        start(dense.build(dense.Options(), ()), RECIPE | {"masks": False})


# ---- the image-level classifier --------------------------------------------------------------------------------------

def saved(path, network, **about):
    checkpoint.save(path, network, {"network": "small", "classes": ["a", "b", "c"], "seed": 3, "history": [], **about})
    return path


def random_head(network):
    torch.nn.init.normal_(network.fc.weight)
    torch.nn.init.normal_(network.fc.bias)
    return network.eval()


def test_the_converted_network_is_the_mean_of_the_dense_one(tmp_path):
    network = random_head(small(4))
    x = torch.randn(5, 3, 32, 32)
    found = trained(typed.network(SECTION), saved(tmp_path / "a.pt", network, background=True), torch.device("cpu"))
    with torch.inference_mode():
        native = network.dense(x).mean((2, 3))
        torch.testing.assert_close(found(x), native[:, 1:], rtol=0, atol=1e-5)
        torch.testing.assert_close(found.background(found.features(x)), native[:, :1], rtol=0, atol=1e-5)
    assert found.head.out_features == 3 and head_name(found) == "fc"
    plain = trained(typed.network(SECTION), saved(tmp_path / "b.pt", random_head(small(3))), torch.device("cpu"))
    assert not hasattr(plain, "background")


def test_the_head_is_loaded_and_as_released_it_is_not(tmp_path):
    network = random_head(small(4))
    x = torch.randn(3, 3, 16, 16)
    right = trained(typed.network(SECTION), saved(tmp_path / "a.pt", network, background=True), torch.device("cpu"))
    torch.testing.assert_close(right.head.weight, network.fc.weight[1:])
    path = saved(tmp_path / "b.pt", network, background=True, released=["dfb.2h-1"])
    released = [trained(typed.network(SECTION), path, torch.device("cpu")) for _ in range(2)]
    assert torch.equal(released[0].head.weight, released[1].head.weight)
    assert not torch.isclose(released[0].head.weight, network.fc.weight[1:]).any()
    torch.testing.assert_close(released[0].features(x), right.features(x))
    for name in ("mixup", "dense"):
        assert plugins.spec("methods", name).switches == ("dfb.2h-1",)


def test_a_parent_gives_the_body_and_the_new_head_starts_at_zero():
    parent = random_head(small(3))
    about = {"state_dict": parent.state_dict(), "about": {}}
    network = small(4)
    start_from(network, about, True, "p.pt", "small")
    assert torch.equal(network.conv1.weight, parent.conv1.weight) and not network.fc.weight.any()
    with pytest.raises(OODError, match=r"p.pt is not of network 'small': fc.bias is \(3,\), expected \(4,\)"):
        start_from(small(4), about, False, "p.pt", "small")
    kept = small(4)
    start_from(kept, about, True, "p.pt", "small", head_too=True)
    assert torch.equal(kept.fc.weight[1:], parent.fc.weight) and not kept.fc.weight[0].any()
    again = small(4)
    start_from(again, {"state_dict": random_head(small(4)).state_dict(), "about": {"background": True}}, True, "p", "s")
    assert again.fc.weight.any()


# ---- stages: training on pseudo-masks, features, scores, fusion ------------------------------------------------------

@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stages")
    data = squares(48)
    write_store(folder / "rows.train.h5", data.labels.numpy(), 3, images=data.pixels.numpy())
    write_store(folder / "rows.test.h5", data.labels.numpy()[:12], 3, images=data.pixels.numpy()[:12])
    write_store(folder / "other.test.h5", np.full(12, -1), 0, images=images(12)[0])
    with h5py.File(folder / "masks.h5", "w") as file:
        file["masks"] = data.masks.numpy()
    run_train(folder)
    normalise = {"network": SECTION, "normalise": RECIPE["normalise"], "batch_size": 16}
    names = ["rows.train", "rows.test", "other.test"]
    features.main(["--config", json.dumps({**normalise, "sets": names}), "--checkpoint", str(folder / "seed0.pt"),
                   "--stores", *(str(folder / f"{n}.h5") for n in names), "--out",
                   *(str(folder / "features" / f"{n}.h5") for n in names), "--head", str(folder / "features/head.h5"),
                   "--device", "cpu"])
    return folder


def run_train(folder, *words):
    recipe = RECIPE | {"method": "dense", "options": {}, "validation": None, "keep": "last"}
    train.main(["--config", json.dumps({"network": SECTION, "recipe": recipe, "released": [], "steps": 20}), "--data",
                str(folder / "rows.train.h5"), "--masks", str(folder / "masks.h5"), "--seed", "0", "--device", "cpu",
                "--threads", "1", "--out", str(folder / "seed0.pt"), *words])


def test_training_on_pseudo_masks_of_other_images_is_refused(folder, tmp_path, capsys):
    for shape, value, message in (((47, 16, 16), 1, "47 pseudo-masks for 48 train images"),
                                  ((48, 16, 16), 4, "label 4 with 3 classes")):
        with h5py.File(tmp_path / "m.h5", "w") as file:
            file["masks"] = np.full(shape, value, np.uint8)
        with pytest.raises(SystemExit):
            run_train(folder, "--masks", str(tmp_path / "m.h5"), "--out", str(tmp_path / "x.pt"))
        assert message in capsys.readouterr().err


def test_features_hold_the_background_and_jigsaws_of_the_train_images(folder):
    assert checkpoint.read(folder / "seed0.pt")["about"]["background"] is True
    with h5py.File(folder / "features/rows.train.h5") as file, h5py.File(folder / "features/head.h5") as head:
        assert file["logits"].shape == (48, 3) and file["background"].shape == (48,)
        assert file["shuffled/logits"].shape == (48, 3) and file["shuffled/background"].shape == (48,)
        assert not np.allclose(file["shuffled/background"][:], file["background"][:])
        assert head["weight"].shape == (3, 16)
        np.testing.assert_allclose(file["features"][:] @ head["weight"][:].T + head["bias"][:], file["logits"][:],
                                   rtol=1e-4, atol=1e-5)
    with h5py.File(folder / "features/rows.test.h5") as file:
        assert "background" in file and "shuffled" not in file


def run_score(folder, name, module=None, **options):
    out = folder / "scores" / f"{name}.h5"
    score.main(["--config", json.dumps({"score": module or name, "name": name, "options": options}), "--sets",
                *(str(folder / "features" / f"{n}.h5") for n in ("rows.test", "other.test", "rows.train")), "--train",
                str(folder / "features/rows.train.h5"), "--out", str(out)])
    with h5py.File(out) as file:
        return {key: file[key][:] for key in file}


def run_fuse(folder, **options):
    fuse.main(["--config", json.dumps({"train": "rows.train", "options": options}), "--foreground",
               str(folder / "scores/energy.h5"), "--background", str(folder / "scores/background.h5"), "--out",
               str(folder / "scores/fused.h5")])
    with h5py.File(folder / "scores/fused.h5") as file:
        return {key: file[key][:] for key in file}


def test_the_three_columns(folder):
    """Base scores run unchanged on the K outputs; weight 0 is the foreground score to the bit."""
    fg, bg = run_score(folder, "energy"), run_score(folder, "background")
    with h5py.File(folder / "features/other.test.h5") as file:
        np.testing.assert_allclose(fg["other.test"], np.log(np.exp(file["logits"][:].astype(float)).sum(1)))
        np.testing.assert_allclose(np.abs(bg["other.test"]), np.abs(file["background"][:]), rtol=1e-6)
    assert all(np.array_equal(v, fg[k]) for k, v in run_fuse(folder, weight=0.0).items())
    both = run_fuse(folder, weight=0.5)
    scale = fg["rows.train"].std() / bg["rows.train"].std()
    for name in fg:
        np.testing.assert_allclose(both[name], fg[name] + 0.5 * scale * (bg[name] - bg["rows.train"].mean()))
    plain = run_fuse(folder, normalise="none")
    np.testing.assert_allclose(plain["other.test"], fg["other.test"] + bg["other.test"] - bg["rows.train"].mean())


def test_the_sign_is_decided_on_id_images_alone(folder):
    found = run_score(folder, "background", sign="auto")
    with h5py.File(folder / "features/rows.train.h5") as file:
        gap = file["background"][:].mean() - file["shuffled/background"][:].mean()
        np.testing.assert_allclose(found["rows.train"], np.sign(gap) * file["background"][:], rtol=1e-6)
    for sign, factor in (("plus", 1), ("minus", -1)):
        fixed = run_score(folder, "background", sign=sign, temperature=2.0)
        np.testing.assert_allclose(fixed["rows.train"] * factor * 2 * np.sign(gap), found["rows.train"], rtol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_forms_of_the_background_score(temperature):
    rng = np.random.default_rng(0)
    logits, b = rng.normal(0, 3, (20, 4)), rng.normal(0, 3, 20)
    given = scores.Batch(logits=logits, background=b)

    def values(form):
        return background.score(background.Options(form, temperature, "plus"), Known(), 1.0, given)

    np.testing.assert_allclose(values("logit"), b / temperature)
    whole = np.concatenate([b[:, None], logits], 1) / temperature
    np.testing.assert_allclose(values("log_softmax"), whole[:, 0] - np.log(np.exp(whole).sum(1)))
    np.testing.assert_allclose(values("contrast"), b / temperature - energy.score(
        energy.Options(), Known(), None, scores.Batch(logits=logits / temperature)))
    far = replace(given, background=np.full(20, 1e4))
    assert np.isfinite(background.values(background.Options(form="log_softmax"), far)).all()


def test_a_flat_background_score_and_files_of_different_runs_are_refused(tmp_path, capsys):
    with pytest.raises(OODError, match="'background' is the same for all ID train images"):
        fusion.fit(fusion.Options(), Known(train_scores=np.stack([np.arange(4.0), np.ones(4)], 1)))
    for name, count in (("energy", 5), ("background", 4)):
        (tmp_path / "scores").mkdir(exist_ok=True)
        with h5py.File(tmp_path / "scores" / f"{name}.h5", "w") as file:
            file["rows.train"] = np.arange(float(count))
    with pytest.raises(SystemExit):
        run_fuse(tmp_path)
    assert "set 'rows.train': 5 scores in" in capsys.readouterr().err


def test_split_background_takes_the_first_row():
    network = random_head(small(4))
    old = network.fc
    split_background(network)
    assert torch.equal(network.background.weight, old.weight[:1]) and torch.equal(network.head.bias, old.bias[1:])
    assert torch.equal(network.background.bias, old.bias[:1])
