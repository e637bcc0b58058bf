"""Images whose long side is kept: stored whole, cut at random as torchvision cuts them, evaluated at the centre."""

from __future__ import annotations

import itertools
import json
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from tests import typed
from tests.training.test_outliers import RECIPE, run
from workflow_scripts.core.errors import OODError
from workflow_scripts.data.images import rows
from workflow_scripts.data.images.augment import augment
from workflow_scripts.data.images.geometry import resize
from workflow_scripts.data.images.long_side import LongSide
from workflow_scripts.data.images.randomness import uniforms
from workflow_scripts.data.images.store import load_store, open_store, pixel_rows, streamed, write_store
from workflow_scripts.data.reading import Images as Raw
from workflow_scripts.methods import outlier_exposure
from workflow_scripts.stages import extract_features as features
from workflow_scripts.stages import make_cards as cards
from workflow_scripts.stages import train_network as train
from workflow_scripts.stages.sections.make_cards import CardOf
from workflow_scripts.training import images, outliers
from workflow_scripts.training.loop import batches
from workflow_scripts.training.outliers import load_outliers

transforms = pytest.importorskip("torchvision.transforms")
CPU = torch.device("cpu")
RANDOM = np.random.default_rng(11)
SIZES = [(64, 64), (90, 60), (60, 90), (32, 32), (200, 40), (41, 33), (33, 41), (75, 50)]  # width, height
PICTURES = [RANDOM.integers(0, 256, (h, w, 3), dtype=np.uint8) for w, h in SIZES * 3]


def write(path: Path, order: list[int], geometry: str = "short32", count: int = len(PICTURES)) -> Path:
    """A store of the pictures; they come from the reader in ``order``, and what is not in it was corrupt."""
    raw = Raw(np.arange(count) % 2, [str(i) for i in range(count)], ("a", "b"), {},
              lambda index: ((i, PICTURES[i][None]) for i in order))
    definition = {"dataset": "x", "split": "train", "geometry": geometry}
    write_store(path, raw, np.arange(count), ("a", "b"), definition, partial(resize, geometry=geometry))
    return path


def resized(picture: np.ndarray) -> Image.Image:
    return transforms.Resize(32)(Image.fromarray(picture))


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("long") / "x.h5", list(range(len(PICTURES))))


@pytest.mark.parametrize("order", [list(range(24)), RANDOM.permutation(24).tolist(), [20, 3, 4, 9, 0]],
                         ids=["in order", "in any order", "some corrupt"])
@pytest.mark.parametrize("gap", [0, 2**20], ids=["one by one", "at once"])
def test_what_is_stored_is_the_resized_image(tmp_path, monkeypatch, order, gap):
    monkeypatch.setattr(rows, "_GAP", gap)
    path, kept = write(tmp_path / "x.h5", order), sorted(order)
    with open_store(path) as file:
        for place, number in enumerate(kept):
            width, height, offset = (int(file[key][place]) for key in ("widths", "heights", "offsets"))
            pixels = file["flat"][offset:offset + width * height * 3].reshape(height, width, 3)
            assert np.array_equal(pixels, np.asarray(resized(PICTURES[number])))
        assert file["names"].asstr()[:].tolist() == [str(i) for i in kept]
    cropped = load_store(write(tmp_path / "crop.h5", order, "crop32"))
    with streamed(path) as long:
        assert np.array_equal(long.images[:], cropped.images)  # evaluation: the same as a store of central crops
        assert np.array_equal(long.images[::3], cropped.images[::3])
        assert np.array_equal(long.images[np.array([4, 0, 4])], cropped.images[[4, 0, 4]])
        assert long.labels.tolist() == cropped.labels.tolist()
    assert np.array_equal(load_store(path).images[2:5], cropped.images[2:5])


def test_the_same_images_give_the_same_bytes(tmp_path):
    assert write(tmp_path / "a.h5", list(range(24))).read_bytes() == write(tmp_path / "b.h5",
                                                                          list(range(24))).read_bytes()


@pytest.mark.parametrize("resident", [True, False])
def test_windows_are_windows_of_the_padded_image(store, resident):
    long = LongSide.of(load_store(store).images, CPU, resident)
    assert long.shape == (24, 32, 32, 3)
    index = torch.randint(0, 24, (300,), generator=torch.Generator().manual_seed(0))
    for steps, padding, size in (([{"random_crop": 4}], 4, 32), ([{"random_crop": {"size": 28}}], 0, 28)):
        found = augment(long[index], typed.steps(steps), 3, 1, torch.arange(300)).numpy()
        u = uniforms(3, 1, torch.arange(300), 2).numpy()
        for k, number in enumerate(index.tolist()):
            padded = np.pad(np.asarray(resized(PICTURES[number])), ((padding,) * 2, (padding,) * 2, (0, 0)))
            top, left = (int(np.float32(u[k, a]) * np.float32(padded.shape[a] - size + 1)) for a in (0, 1))
            assert np.array_equal(found[k], padded[top:top + size, left:left + size])


N = 20000


@pytest.mark.parametrize("number", [1, 2, 4, 0], ids=["wide", "tall", "very wide", "square"])
def test_windows_are_distributed_as_torchvisions(store, number):
    """How often each window is taken, over all places it can be: chi-squared against torchvision's draws."""
    from scipy.stats import chi2_contingency
    torch.manual_seed(number)
    image = resized(PICTURES[number])
    height, width = image.size[1] + 8 - 32 + 1, image.size[0] + 8 - 32 + 1
    crop = transforms.RandomCrop(32, padding=4)
    theirs = np.array([crop.get_params(torch.empty(3, image.size[1] + 8, image.size[0] + 8), (32, 32))[:2]
                       for _ in range(N)])
    # ours by what is seen: the coordinates are written into the pixels, from 1 on, 0 being the padding
    place = np.stack(np.broadcast_arrays(*np.ogrid[1:image.size[1] + 1, 1:image.size[0] + 1], 0), -1).astype(np.uint8)
    long = LongSide(torch.from_numpy(place.reshape(-1, 3)), torch.tensor([0]), torch.tensor([image.size[0]]),
                    torch.tensor([image.size[1]]), 32, CPU)
    zeros, steps = torch.zeros(N, dtype=torch.int64), typed.steps([{"random_crop": 4}])
    seen = augment(long[zeros], steps, 0, 0, torch.arange(N))[:, 16, 16]
    ours = seen[:, :2].long().numpy() - 1 - 16 + 4
    assert ours.min() >= 0 and ours[:, 0].max() == height - 1 and ours[:, 1].max() == width - 1
    cells = [np.histogram2d(*found.T, bins=(min(height, 9), min(width, 20)),
                            range=((0, height), (0, width)))[0].ravel() for found in (ours, theirs)]
    assert chi2_contingency(np.array(cells)).pvalue > 1e-5


def test_later_steps_and_other_first_steps(store):
    long, index = LongSide.of(load_store(store).images, CPU), torch.arange(24)
    centre = torch.from_numpy(load_store(store).images[:])
    assert torch.equal(long.centre(), centre) and torch.equal(augment(long, [], 0, 0, index), centre)
    flipped = typed.steps([{"horizontal_flip": 0.5}, {"random_crop": 4}])
    assert torch.equal(augment(long, flipped, 2, 3, index), augment(centre, flipped, 2, 3, index))
    both = augment(long, typed.steps([{"random_crop": 4}, {"horizontal_flip": 0.5}]), 2, 3, index)
    windows = augment(long, typed.steps([{"random_crop": 4}]), 2, 3, index)
    mirrored = uniforms(2, 3, index, 3)[:, 2] < 0.5
    assert torch.equal(both, torch.where(mirrored[:, None, None, None], windows.flip(2), windows))
    assert torch.equal(augment(long[torch.tensor([5, 7])], flipped[1:], 2, 3, torch.tensor([5, 7])), windows[[5, 7]])
    with pytest.raises(OODError, match="random_crop of 48 does not fit into images of a shorter side of 32"):
        augment(long, typed.steps([{"random_crop": {"size": 48, "padding": 4}}]), 0, 0, index)


def test_some_images_alone(store, monkeypatch):
    monkeypatch.setattr(rows, "_GAP", 10_000)  # a few images at a time
    with open_store(store) as file:
        whole, index = pixel_rows(file), np.array([1, 2, 3, 9, 10, 23])
        some = whole.only(index)
        assert len(some.flat) == 3 * (whole.widths * whole.heights)[index].sum()
        assert np.array_equal(some[:], whole[index])
        assert torch.equal(LongSide.of(some, CPU).centre(), LongSide.of(whole, CPU).centre()[index])


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("order", ["shuffled", "block"])
def test_outliers_are_cut_at_random(store, monkeypatch, resident, order):
    if not resident:
        monkeypatch.setattr(outliers, "RESIDENT", 0)
    section, recipe = {"batch_size": 10, "order": order}, RECIPE | {"augment": [{"random_crop": 4}]}
    source = load_outliers(str(store), typed.outliers(section), 0, CPU, (32, 32, 3))
    long = LongSide.of(load_store(store).images, CPU)
    first = list(itertools.islice(source.batches(typed.recipe(recipe), 0), 5))
    for (x, index), (again, _) in zip(first, source.batches(typed.recipe(recipe), 0), strict=False):
        assert x.shape == (10, 3, 32, 32) and torch.equal(x, again) and index.max() < 24
    x, index = first[0]
    visit = index + 24 * (index < index[0]) if order == "block" else index  # a block may go round
    expected = augment(long[index], typed.steps(recipe["augment"]), source.seed, 0, visit)
    assert torch.equal(x.permute(0, 2, 3, 1).round().to(torch.uint8), expected)
    assert not torch.equal(first[0][0][index.argsort()], long.centre()[index.sort().values].permute(0, 3, 1, 2).float())


def test_outliers_that_do_not_fit_are_refused(store):
    with pytest.raises(OODError, match=r"outliers of 32x32 pixels, ID images of 8x8"):
        load_outliers(str(store), typed.outliers({"batch_size": 4, "order": "block"}), 0, CPU, (8, 8, 3))


def test_trained_on_evaluated_and_shown(store, tmp_path):
    """As ID images of the train stage, with held-out ones; as a set of the features stage; as a card."""
    recipe = RECIPE | {"method": "cross_entropy", "options": {}, "augment": [{"random_crop": 4}], "outliers": None,
                       "validation": {"count": 6, "seed": 0, "list": None}, "normalise": "per_image"}
    network = {"name": "n", "model": "resnet_cifar", "options": {"blocks": [1, 1, 1, 1], "width": 4}}
    train.main(["--config", json.dumps({"network": network, "recipe": recipe, "released": [], "steps": 2}),
                "--data", str(store), "--seed", "0", "--device", "cpu", "--threads", "1", "--out", str(tmp_path / "c")])
    cropped = write(tmp_path / "crop.h5", list(range(24)), "crop32")
    for name, path in (("long", store), ("crop", cropped)):
        features.main(["--config", json.dumps({"network": network, "sets": ["x"], "normalise": "per_image",
                                               "batch_size": 7}), "--checkpoint", str(tmp_path / "c"), "--stores",
                       str(path), "--out", str(tmp_path / name), "--device", "cpu", "--threads", "1"])
    with h5py.File(tmp_path / "long") as long, h5py.File(tmp_path / "crop") as crop:
        assert np.array_equal(long["x/features"][:], crop["x/features"][:])
    made = [cards.card(CardOf(name="x", path=str(path), role="ID test")) for path in (store, cropped)]
    assert made[0]["png"] == made[1]["png"] and made[0]["count"] == 24 and made[0]["shape"] == [32, 32]


def test_a_method_trains_against_them(store):
    data = images.images_of(load_store(store), CPU)
    eight = typed.outliers({"batch_size": 8})
    source = load_outliers(str(store), eight, 0, CPU, data.pixels.shape[1:])
    method = outlier_exposure.build(outlier_exposure.Options(), ())
    recipe = RECIPE | {"augment": [{"random_crop": 4}, {"horizontal_flip": 0.5}]}
    batch = next(batches(data, typed.recipe(recipe), 0, 0, outliers=source))
    assert batch.images.shape == (16, 3, 32, 32) and batch.outliers.shape == (8, 3, 32, 32)
    small = load_outliers(str(_small(store)), eight, 0, CPU, (8, 8, 3))
    assert run(method, RECIPE, outliers=small)[1][-1]["loss"] > 0


def _small(store: Path) -> Path:
    path = store.with_name("small.h5")
    raw = Raw(np.arange(24) % 2, [str(i) for i in range(24)], ("a", "b"), {},
              lambda index: ((i, PICTURES[i][None]) for i in range(24)))
    write_store(path, raw, np.arange(24), (), {"dataset": "x", "split": "train", "geometry": "short8"},
                partial(resize, geometry="short8"))
    return path


def damaged(change):
    def apply(path: Path) -> None:
        with h5py.File(path, "a") as file:
            change(file)
    return apply


def shorten(file: h5py.File) -> None:
    file["flat"].resize(len(file["flat"]) - 5, axis=0)


@pytest.mark.parametrize(("change", "words"), [
    (damaged(lambda file: file.__delitem__("widths")), "no image store: it lacks widths"),
    (damaged(shorten), r"[\d,]+ bytes of pixels expected, found"),
    (damaged(lambda file: file.move("flat", "numbers")), "no image store: it lacks archive"),
])
def test_damage_is_named(store, tmp_path, change, words):
    path = tmp_path / "x.h5"
    path.write_bytes(store.read_bytes())
    change(path)
    with pytest.raises(OODError, match=words), open_store(path) as file:
        pixel_rows(file)
