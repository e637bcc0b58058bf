"""Augmentation equal to torchvision's on PIL images, randomness from (seed, epoch, image) alone, any workers."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests import typed
from workflow_scripts.core.changes import CropWindow, Jitter, ResizedWindow
from workflow_scripts.core.errors import OODError
from workflow_scripts.data.archives import packing
from workflow_scripts.data.archives.collection import Collection
from workflow_scripts.data.archives.lmdb_store import Archive
from workflow_scripts.data.images import augment, colour, dataset, resample
from workflow_scripts.data.images.augment import OPERATIONS, normalise
from workflow_scripts.data.images.randomness import permutation, uniforms, uniforms_of
from workflow_scripts.data.images.rows import Encoded, decoded
from workflow_scripts.data.images.store import Store
from workflow_scripts.training import images

transforms = pytest.importorskip("torchvision.transforms")
functional = transforms.functional
RANDOM = np.random.default_rng(3)


def batch(count: int, height: int = 32, width: int = 32) -> torch.Tensor:
    """Noise, and images that are grey, constant, dark or nearly white."""
    x = RANDOM.integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    x[0], x[1], x[2] = 7, x[1, :, :, :1], RANDOM.integers(0, 3, x.shape[1:])
    x[3], x[4] = 255, RANDOM.integers(250, 256, x.shape[1:])
    return torch.from_numpy(x)


def by_pil(function, images: torch.Tensor, *arguments) -> np.ndarray:
    """torchvision's function on each image, its arguments one per image."""
    return np.stack([np.asarray(function(Image.fromarray(image), *values))
                     for image, *values in zip(images.numpy(), *arguments, strict=True)])


# ---- equal to the byte on fixed parameters ---------------------------------------------------------------------------

@pytest.mark.parametrize(("name", "low", "high"), [("brightness", 0, 2), ("contrast", 0, 2), ("saturation", 0, 2),
                                                  ("hue", -0.5, 0.5)])
def test_colour_equals_torchvisions(name, low, high):
    images = batch(40)
    factor = torch.from_numpy(RANDOM.uniform(low, high, 40).astype(np.float32))
    factor[:3] = torch.tensor([low, high, (low + high) / 2])
    expected = by_pil(getattr(functional, f"adjust_{name}"), images, factor.tolist())
    assert np.array_equal(getattr(colour, name)(images, factor), expected)


@pytest.mark.parametrize("turn", [-0.5, -0.1, 0.0, 0.07, 0.5])
def test_hue_of_all_colours(turn):
    """A grid of 52^3 colours, which takes every branch of the way to HSV and back."""
    colours = np.stack(np.meshgrid(*[np.arange(0, 256, 5, dtype=np.uint8)] * 3), -1).reshape(1, 52, -1, 3)
    expected = by_pil(functional.adjust_hue, torch.from_numpy(colours), [float(np.float32(turn))])
    assert np.array_equal(colour.hue(torch.from_numpy(colours), torch.tensor([turn])), expected)


def test_grayscale_equals_torchvisions():
    images = batch(20)
    expected = by_pil(lambda image: functional.rgb_to_grayscale(image, 3), images)
    assert np.array_equal(colour.grayscale(images, 1.0, torch.zeros(20, 1)), expected)


@pytest.mark.parametrize(("height", "width", "size"), [(32, 32, 32), (20, 31, 32), (64, 48, 32), (40, 64, 24)])
def test_resized_crop_equals_torchvisions(height, width, size):
    images = batch(30, height, width)
    box = resample.boxes(height, width, (0.08, 1.0), (3 / 4, 4 / 3), torch.rand(30, 22))
    box[0], box[1] = torch.tensor([0, 0, height, width]), torch.tensor([3, 5, 1, 1])
    expected = by_pil(lambda image, b: functional.resized_crop(image, *b, [size, size]), images, box.tolist())
    difference = np.abs(resample.resized_crop(images, box, size).numpy().astype(int) - expected)
    # Pillow 13 resizes the height first where that shrinks more: other roundings, by 1, in some of these
    enlarged = (box[:, 2] <= size) & (box[:, 3] <= size)
    assert difference[enlarged].max() == 0
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.1


@pytest.mark.parametrize("how", [{"mean": [0.4914, 0.4822, 0.4465], "std": [0.2023, 0.1994, 0.2010]},
                                 {"mean": [0.5] * 3, "std": [0.25] * 3}])
def test_normalise_equals_torchvisions(how):
    images = batch(20)
    plan = transforms.Compose([transforms.ToTensor(), transforms.Normalize(how["mean"], how["std"])])
    expected = torch.stack([plan(Image.fromarray(image)) for image in images.numpy()])
    found = normalise(images, typed.normalise(how))
    assert torch.equal(found, expected)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_crop_and_flip_are_windows_and_mirrors():
    images, u = batch(64), torch.rand(64, 2)
    padded = np.pad(images.numpy(), ((0, 0), (4, 4), (4, 4), (0, 0)))
    top, left = (u * 9).long().unbind(1)
    expected = np.stack([p[t:t + 32, s:s + 32] for p, t, s in zip(padded, top, left, strict=True)])
    assert np.array_equal(augment.random_crop(images, 4, u), expected)
    smaller = np.stack([p[t:t + 24, s:s + 24] for p, t, s in zip(np.pad(
        images.numpy(), ((0, 0), (2, 2), (2, 2), (0, 0))), *(u * 13).long().unbind(1), strict=True)])
    assert np.array_equal(augment.random_crop(images, CropWindow(size=24, padding=2), u), smaller)
    with pytest.raises(OODError, match="a random_crop of 40 does not fit into images of 32x32 with a padding of 3"):
        augment.random_crop(images, CropWindow(size=40, padding=3), u)
    flipped = augment.horizontal_flip(images, 0.5, u[:, :1]).numpy()
    for image, mirrored, value in zip(images.numpy(), flipped, u[:, 0], strict=True):
        assert np.array_equal(mirrored, image[:, ::-1] if value < 0.5 else image)


# ---- equal in distribution -------------------------------------------------------------------------------------------

N = 4000  # draws; the bounds below are five standard errors


def same_distribution(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Kolmogorov-Smirnov: two samples of N and their size differ by less than chance allows at 1 in 100,000."""
    from scipy.stats import ks_2samp
    assert ks_2samp(ours, theirs).pvalue > 1e-5


@pytest.mark.parametrize(("height", "width", "scale", "ratio"), [
    (32, 32, (0.2, 1.0), (3 / 4, 4 / 3)), (40, 64, (0.08, 1.0), (3 / 4, 4 / 3)), (20, 90, (0.5, 1.0), (0.9, 1.1))])
def test_boxes_are_distributed_as_torchvisions(height, width, scale, ratio):
    torch.manual_seed(0)
    ours = resample.boxes(height, width, scale, ratio, uniforms(0, 0, torch.arange(N), 22)).numpy()
    image = torch.empty(3, height, width)
    theirs = np.array([transforms.RandomResizedCrop.get_params(image, scale, ratio) for _ in range(N)])
    for column in range(4):
        same_distribution(ours[:, column], theirs[:, column])
    same_distribution(ours[:, 0] * ours[:, 3], theirs[:, 0] * theirs[:, 3])  # not only each by itself
    assert (ours[:, :2] >= 0).all() and (ours[:, 0] + ours[:, 2] <= height).all()
    assert (ours[:, 1] + ours[:, 3] <= width).all()


def test_jitter_is_distributed_as_torchvisions():
    """Of one picture: how often it is left alone, and the first two moments of the mean of each channel."""
    torch.manual_seed(0)
    image = RANDOM.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    image[..., 0] //= 3
    how = Jitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, p=0.8)
    ours = colour.colour_jitter(torch.from_numpy(image).expand(N, 8, 8, 3), how,
                                uniforms(0, 1, torch.arange(N), 6)).numpy()
    plan = transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8)
    theirs = np.stack([np.asarray(plan(Image.fromarray(image))) for _ in range(N)])
    alone = [(found == image).all((1, 2, 3)).mean() for found in (ours, theirs)]
    assert abs(alone[0] - 0.2) < 5 * (0.2 * 0.8 / N) ** 0.5
    assert abs(alone[1] - 0.2) < 5 * (0.2 * 0.8 / N) ** 0.5
    for channel in range(3):
        same_distribution(ours[..., channel].mean((1, 2)), theirs[..., channel].mean((1, 2)))
        same_distribution(ours[:, 3, 5, channel], theirs[:, 3, 5, channel])


def test_jitter_takes_every_order_and_leaves_out_what_is_zero():
    u = uniforms(0, 0, torch.arange(N), 6)
    orders = colour._orders(torch.device("cpu"))[(u[:, 1] * 24).long()]
    counts = np.unique(orders.numpy(), axis=0, return_counts=True)[1]
    assert len(counts) == 24
    assert np.abs(counts - N / 24).max() < 5 * (N / 24) ** 0.5
    images = batch(20)
    assert torch.equal(colour.colour_jitter(images, Jitter(), u[:20]), images)
    only = colour.colour_jitter(images, Jitter(brightness=0.4), u[:20])
    assert torch.equal(only, colour.brightness(images, 0.6 + 0.8 * u[:20, 2]))


@pytest.mark.parametrize(("step", "probability"), [({"grayscale": 0.2}, 0.2), ({"horizontal_flip": 0.5}, 0.5)])
def test_how_often(step, probability):
    image = torch.from_numpy(RANDOM.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    found = augment.augment(image.expand(N, 4, 4, 3), typed.steps([step]), 0, 0, torch.arange(N))
    changed = (found != image).flatten(1).any(1).float().mean()
    assert abs(changed - probability) < 5 * (probability * (1 - probability) / N) ** 0.5


# ---- a function of seed, epoch and image -----------------------------------------------------------------------------

STEPS = typed.steps([
    {"random_resized_crop": {"size": 24, "scale": [0.2, 1.0]}}, {"horizontal_flip": 0.5},
    {"color_jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1, "p": 0.8}},
    {"grayscale": 0.2}, {"random_crop": 2}])


def test_an_image_becomes_the_same_in_any_batch():
    images, index = batch(40), torch.randperm(1000)[:40]
    whole = augment.augment(images, STEPS, 5, 2, index)
    assert whole.shape == (40, 24, 24, 3)
    order = torch.randperm(40)
    parts = torch.cat([augment.augment(images[part], STEPS, 5, 2, index[part]) for part in order.split(7)])
    assert torch.equal(parts, whole[order])
    for seed, epoch in ((6, 2), (5, 3)):
        assert not torch.equal(augment.augment(images, STEPS, seed, epoch, index), whole)


def test_steps_done_before_do_not_shift_the_others():
    images, index = batch(12), torch.arange(12)
    u = uniforms(1, 1, index, sum(OPERATIONS[name][1] for step in STEPS for name, _ in step))
    first = resample.random_resized_crop(images, STEPS[0].random_resized_crop, u[:, :22])
    assert torch.equal(augment.augment(first, STEPS, 1, 1, index, done=1),
                       augment.augment(images, STEPS, 1, 1, index))


def test_uniforms_without_tensors_are_the_same():
    for seed, epoch, index in ((0, 0, 0), (3, 7, 12345), (2**31, 199, 79_302_016)):
        assert uniforms_of(seed, epoch, index, 5) == uniforms(seed, epoch, torch.tensor([index]), 5)[0].tolist()


# ---- decoding in workers ---------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """Thirty JPEG and PNG images of several sizes and modes."""
    root = tmp_path_factory.mktemp("archive")
    (root / "x").mkdir()
    for i in range(30):
        image = Image.fromarray(RANDOM.integers(0, 256, (40 + i, 70 - i, 3), dtype=np.uint8))
        image.convert(("RGB", "L", "RGB", "CMYK")[i % 4]).save(root / "x" / f"{i:02d}.jpg", "JPEG")
    names = sorted(path.name for path in (root / "x").iterdir())
    sizes = np.array([(root / "x" / name).stat().st_size for name in names])
    collection = Collection((root / "x",), (root / "x",), names, np.zeros(30, np.int16), sizes,
                            np.full((30, 4), -1), np.arange(30), tuple("abc"))
    packing.pack(collection, root / "x.lmdb", {}, workers=0)
    return root / "x.lmdb"


def test_items_equal_torchvisions(archive):
    plan = transforms.Compose([transforms.Resize(36), transforms.CenterCrop(32)])
    images = dataset.Decoded(archive, "resize36crop32")
    for number in range(30):
        pixels, found = images[0, number]
        original = Image.open(io.BytesIO(images.archive.read(number))).convert("RGB")
        assert np.array_equal(pixels, np.asarray(plan(original)))
        assert found == number
    images = dataset.Decoded(archive, ResizedWindow(size=24), seed=4, numbers=np.arange(29, -1, -1))
    for number in range(30):
        original = Image.open(io.BytesIO(images.archive.read(29 - number))).convert("RGB")
        box = resample.boxes(original.height, original.width, (0.08, 1.0), (3 / 4, 4 / 3),
                             uniforms(4, 7, torch.tensor([number]), 22))[0].tolist()
        assert np.array_equal(images[7, number][0], np.asarray(functional.resized_crop(original, *box, [24, 24])))


RECIPE = typed.steps([{"random_resized_crop": {"size": 16}}, {"horizontal_flip": 0.5}])


def decoded_set(archive: Path, workers: int, labels: np.ndarray | None = None) -> images.DecodedImages:
    numbers = np.arange(29, -1, -1)
    store = Store(Encoded(archive, numbers, "crop20"), None, numbers if labels is None else labels, [], (), {})
    return images.images_of(store, torch.device("cpu"), workers)


def passes(archive: Path, workers: int, steps: list, parts: int = 4) -> list[torch.Tensor]:
    """Numbers and images of two epochs, the first one left after a few batches."""
    data, found = decoded_set(archive, workers), []
    for epoch, taken in ((0, parts), (1, 4)):
        order = permutation(1, epoch, 30).split(8)
        for index, pixels in itertools.islice(data.batches(order, steps, 1, epoch), taken):
            assert torch.equal(data.labels[index], 29 - index)
            found += [index, pixels]
        assert torch.equal(torch.cat(found[-2 * taken::2]), torch.cat(order)[:taken * 8])
    return found


@pytest.mark.parametrize("steps", [RECIPE, RECIPE[1:]], ids=["crop", "geometry"])
def test_processes_kept_over_epochs_change_nothing(archive, steps):
    before = torch.random.get_rng_state()
    alone, helped = passes(archive, 0, steps), passes(archive, 2, steps)
    assert torch.equal(torch.random.get_rng_state(), before)  # dropout draws the same numbers beside it
    assert len(alone) == len(helped) == 16 and all(torch.equal(a, b) for a, b in zip(alone, helped, strict=True))
    first, second = (torch.cat(alone[k:k + 8:2]) for k in (0, 8))
    assert not torch.equal(first, second)
    crops = [torch.cat(alone[k + 1:k + 8:2])[order.argsort()] for k, order in ((0, first), (8, second))]
    assert not torch.equal(*crops)  # another epoch, other crops and mirrors
    assert all(torch.equal(a, b) for a, b in zip(passes(archive, 2, steps, parts=1)[2:], alone[8:], strict=True))


def test_decoded_batches_are_the_augmented_images(archive):
    """The same as cutting the whole image on the device, and one store of them where no crop comes first."""
    data = decoded_set(archive, 0)
    index = torch.tensor([3, 17, 28])
    stored = torch.from_numpy(data.pixels.rows[index.numpy()])
    assert torch.equal(data.pixels[index], stored)
    found = next(data.batches([index], RECIPE[1:], 5, 2))[1]
    assert torch.equal(found, augment.augment(stored, RECIPE[1:], 5, 2, index))
    found = next(data.batches([index], RECIPE, 5, 2))[1]
    for number, image in zip(index.tolist(), found, strict=True):
        whole = torch.from_numpy(np.array(decoded(Archive(archive), 29 - number)))[None]
        expected = augment.augment(whole, RECIPE, 5, 2, torch.tensor([number]))[0]
        assert (image.int() - expected.int()).abs().max() <= 1  # see resample on Pillow 13


def test_rows_that_are_decoded_when_read(archive):
    numbers = np.arange(29, -1, -1)
    rows = Encoded(archive, numbers, "crop20")
    plan = transforms.Compose([transforms.Resize(20), transforms.CenterCrop(20)])
    expected = np.stack([np.asarray(plan(decoded(Archive(archive), i))) for i in numbers.tolist()])
    assert rows.shape == (30, 20, 20, 3)
    assert np.array_equal(np.concatenate([rows[i:i + 7] for i in range(0, 30, 7)]), expected)  # each ahead of the next
    assert np.array_equal(rows[np.array([5, 5, 29])], expected[[5, 5, 29]])
    assert np.array_equal(rows[::4], expected[::4]) and rows[3:3].shape == (0, 20, 20, 3)


def test_what_cannot_be_decoded_or_done_is_named(archive, tmp_path):
    with pytest.raises(OODError, match="no image 30"):
        dataset.Decoded(archive, "squash8", numbers=np.array([30]))[0, 0]
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff no picture \xff\xd9")  # begins and ends well
    collection = Collection((tmp_path,), (tmp_path,), ["bad.jpg"], np.zeros(1, np.int16), np.array([17]),
                            np.full((1, 4), -1), np.array([-1]), ())
    packing.pack(collection, tmp_path / "x.lmdb", {}, workers=0)
    with pytest.raises(OODError, match=r"image 0 \(bad.jpg\) cannot be decoded"):
        dataset.Decoded(tmp_path / "x.lmdb", "squash8")[0, 0]
    store = Store(Encoded(tmp_path / "x.lmdb", np.arange(1), "squash8"), None, np.zeros(1, np.int64), [], (), {})
    with pytest.raises(OODError, match=rf"^{tmp_path}/x.lmdb: image 0 \(bad.jpg\) cannot be decoded \(.*\)$"):
        store.images[:1]
    for workers in (0, 1):
        data = images.images_of(store, torch.device("cpu"), workers)
        with pytest.raises(OODError, match=rf"^{tmp_path}/x.lmdb: image 0 \(bad.jpg\) cannot be decoded \(.*\)$"):
            next(data.batches([torch.tensor([0])], RECIPE, 0, 0))
