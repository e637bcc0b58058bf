"""In which order outliers come beside the ID images, out of memory and out of a file."""

from __future__ import annotations

import itertools

import h5py
import numpy as np
import pytest
import torch
from scipy.special import gammaln
from scipy.stats import kstest

from tests import typed
from tests.outlier_data import CPU, RECIPE, numbered
from workflow_scripts.core.errors import OODError
from workflow_scripts.data.images.scattered import ScatteredRows
from workflow_scripts.training import outliers
from workflow_scripts.training.outliers import Outliers, load_outliers


def seen(source: Outliers, epoch: int, steps: int) -> torch.Tensor:
    """(steps, M) numbers of an epoch's outliers; the pixels must be theirs."""
    found = []
    for x, index in itertools.islice(source.batches(typed.recipe(RECIPE), epoch, steps=steps), steps):
        assert x.shape == (source.batch_size, 3, 8, 8) and x.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal((x[:, 0, 0, 0] * 256 + x[:, 1, 3, 5]).round().long(), index)
        found.append(index)
    return torch.stack(found)


@pytest.fixture
def store(tmp_path):
    """A store of 300 numbered images in 8 HDF5 chunks of 41 (the last of 13), to be read in pieces."""
    path = tmp_path / "pool.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=numbered(300).numpy(), chunks=(41, 8, 8, 3), fletcher32=True)
        file["labels"] = np.full(300, -1)
        file["names"] = np.array([b"x"] * 300)
        file.attrs.update(dataset="pool", split="train", classes="[]", definition="{}", sources="{}")
    return path


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("order", ["shuffled", "cycle", "block"])
def test_outliers(store, monkeypatch, resident, order):
    """Each image at most once in a pass (a block: in turn), another choice in each epoch and seed, repeatable."""
    if not resident:
        monkeypatch.setattr(outliers, "RESIDENT", 0)

    def source(seed=0):
        return load_outliers(str(store), typed.outliers({"batch_size": 32, "order": order}), seed, CPU, (8, 8, 3))

    assert isinstance(source().pixels, torch.Tensor) == resident
    first = seen(source(), 0, 21)
    assert torch.equal(first, seen(source(), 0, 21))
    assert not torch.equal(first[:5], seen(source(), 1, 5)) and not torch.equal(first[:5], seen(source(1), 0, 5))
    if order == "block":
        assert torch.equal(first.flatten(), (first[0, 0] + torch.arange(21 * 32)) % 300)
    else:
        assert len(first[:9].unique()) == 9 * 32
        assert not torch.equal(first.sort(1).values[:, 0] + 1, first.sort(1).values[:, 1])  # not contiguous


def loaded(store, order: str, seed: int = 0, **more) -> Outliers:
    return load_outliers(str(store), typed.outliers({"batch_size": 32, "order": order}), seed, CPU, (8, 8, 3), **more)


@pytest.mark.parametrize("order", ["shuffled", "cycle", "block"])
@pytest.mark.parametrize("selected", [False, True])
def test_the_order_does_not_depend_on_the_size(store, tmp_path, monkeypatch, order, selected):
    """A set that is read in pieces gives the batches of one in memory."""
    more = {}
    if selected:
        more["selection"] = str(tmp_path / "kept.h5")
        with h5py.File(more["selection"], "w") as file:
            file["kept"] = np.sort(np.random.default_rng(0).permutation(300)[:100])
            file.attrs["images"] = 300
    whole = [seen(loaded(store, order, **more), epoch, 7) for epoch in range(3)]
    monkeypatch.setattr(outliers, "RESIDENT", 0)
    pieces = [seen(loaded(store, order, **more), epoch, 7) for epoch in range(3)]
    assert torch.equal(torch.stack(whole), torch.stack(pieces))


def test_a_cycle_goes_on_across_epochs(store):
    """Nine batches of 32 are a pass over 300 images: four epochs of four are two passes but two batches."""
    source = loaded(store, "cycle")
    found = torch.cat([seen(source, epoch, 4) for epoch in range(5)])
    assert len(found[:9].unique()) == len(found[9:18].unique()) == 9 * 32
    assert not torch.equal(found[:9], found[9:18])
    anew = loaded(store, "cycle")  # as after an interruption
    rest = [index for _, index in itertools.islice(anew.batches(typed.recipe(RECIPE), 3, 2, steps=4), 2)]
    assert torch.equal(torch.stack(rest), found[14:16])
    shuffled = torch.cat([seen(loaded(store, "shuffled"), epoch, 4) for epoch in range(2)])
    assert len(shuffled.unique()) < 8 * 32  # each epoch begins anew


TOPICS, PER_TOPIC, CHUNK = 20_000, 12, 341  # in the order of topics, as 80 Million Tiny Images are


@pytest.fixture(scope="module")
def topics(tmp_path_factory):
    """A store of 20,000 topics: image i is of topic i // 12."""
    path, count = tmp_path_factory.mktemp("topics") / "topics.h5", TOPICS * PER_TOPIC
    number = np.arange(count, dtype=np.uint32)
    with h5py.File(path, "w") as file:
        pixels = np.stack([number >> 16, number >> 8 & 255, number & 255], 1).astype(np.uint8)[:, None, None]
        file.create_dataset("images", data=pixels, chunks=(CHUNK, 1, 1, 3), fletcher32=True)
        file["labels"] = np.full(count, -1)
        file["names"] = np.array([b"x"] * count)
        file.attrs.update(dataset="topics", split="train", classes="[]", definition="{}", sources="{}")
    return path


@pytest.mark.parametrize("order", ["cycle", "shuffled"])
@pytest.mark.parametrize("share", [1.0, 0.1])
def test_an_epoch_of_a_large_set_covers_as_many_topics_as_a_uniform_draw(topics, tmp_path, monkeypatch, order, share):
    """Both arms of the experiment, all and a random tenth, are as diverse as uniform draws without replacement."""
    monkeypatch.setattr(outliers, "RESIDENT", 0)
    count, steps, batch, kept, selection = TOPICS * PER_TOPIC, 100, 128, np.arange(TOPICS * PER_TOPIC), None
    if share < 1:
        kept, selection = np.flatnonzero(np.random.default_rng(0).random(count) < share), str(tmp_path / "kept.h5")
        with h5py.File(selection, "w") as file:
            file["kept"] = kept
            file.attrs["images"] = count
    section = typed.outliers({"batch_size": batch, "order": order})
    source = load_outliers(str(topics), section, 0, CPU, (1, 1, 3), selection)
    assert isinstance(source.pixels, h5py.Dataset)
    found = []
    for x, index in itertools.islice(source.batches(typed.recipe(RECIPE), 0, steps=steps), steps):
        assert torch.equal((x[:, :, 0, 0].double() * torch.tensor([65536.0, 256, 1])).sum(1).round().long(), index)
        found.append(index)
    numbers = torch.cat(found).numpy()
    assert len(np.unique(numbers)) == steps * batch and np.isin(numbers, kept).all()
    # a topic of k of the n images is missed by m draws with probability C(n - k, m) / C(n, m)
    n, m, sizes = len(kept), steps * batch, np.bincount(kept // PER_TOPIC, minlength=TOPICS)
    missed = np.exp(gammaln(n - sizes + 1) - gammaln(n - sizes - m + 1) - gammaln(n + 1) + gammaln(n - m + 1))
    expected, spread = (1 - missed).sum(), np.sqrt((missed * (1 - missed)).sum())  # an upper bound of the spread
    assert abs(len(np.unique(numbers // PER_TOPIC)) - expected) < 4 * spread
    # where in the file the images of an epoch and of one batch lie: uniform, too
    for part in (numbers, numbers[:batch]):
        assert kstest(np.searchsorted(kept, part) / n, "uniform").pvalue > 1e-3


def test_of_a_large_store_single_images_are_read(store, monkeypatch):
    """A block reads its own rows through HDF5; a shuffled batch its images and nothing around them."""
    monkeypatch.setattr(outliers, "RESIDENT", 0)
    monkeypatch.setattr(outliers, "AHEAD", 1)
    read, pieces = [], []
    rows, piece = Outliers._rows, ScatteredRows._piece
    monkeypatch.setattr(Outliers, "_rows", lambda self, a, b: read.append(b - a) or rows(self, a, b))
    monkeypatch.setattr(ScatteredRows, "_piece", lambda self, at, count, number:
                        pieces.append(count) or piece(self, at, count, number))
    seen(loaded(store, "block"), 0, 3)
    assert sum(read) == (3 + 1) * 32 and not pieces  # one batch ahead
    read.clear()
    seen(loaded(store, "cycle"), 0, 3)
    assert sum(pieces) == (3 + 1) * 32 and not read


def test_a_large_store_that_is_cut_off_or_compressed_is_named(store, tmp_path, monkeypatch):
    monkeypatch.setattr(outliers, "RESIDENT", 0)
    source = loaded(store, "cycle")
    with open(store, "r+b") as file:
        file.truncate(int(source.scattered.starts[3]))
    with pytest.raises(OODError, match=r"pool\.h5: image \d+ lies beyond the end of the file"):
        seen(source, 0, 9)
    with h5py.File(tmp_path / "packed.h5", "w") as file:
        rows = file.create_dataset("images", data=numbered(300).numpy(), chunks=(41, 8, 8, 3), compression="gzip")
        with pytest.raises(OODError, match=r"packed\.h5: /images is not stored as the prepare stage stores it"):
            ScatteredRows(rows)
        plain = file.create_dataset("plain", data=numbered(300).numpy())
        file.flush()
        assert np.array_equal(ScatteredRows(plain)[np.array([0, 7, 8, 299])], plain[:][[0, 7, 8, 299]])


def test_an_outlier_met_again_is_augmented_anew():
    source = Outliers(torch.randint(0, 256, (8, 8, 8, 3), dtype=torch.uint8), 8, "shuffled", 0, CPU, "x")
    recipe = RECIPE | {"augment": [{"random_crop": 4}]}
    passes = [x[index.argsort()] for x, index in itertools.islice(source.batches(typed.recipe(recipe), 0), 2)]
    assert not torch.equal(*passes)


@pytest.mark.parametrize(("size", "kind", "shape", "message"), [
    (301, "images", (8, 8, 3), r"outliers\.batch_size: 301 is more than the 300 images of .*pool\.h5"),
    (8, "images", (32, 32, 3), r"pool\.h5: outliers of 8x8 pixels, ID images of 32x32"),
    (8, "inputs", (8, 8, 3), r"pool\.h5 holds ready network inputs"),
])
def test_outlier_sets_that_do_not_fit_are_refused(store, size, kind, shape, message):
    if kind == "inputs":
        with h5py.File(store, "a") as file:
            del file["images"]
            file["inputs"] = np.zeros((300, 3, 8, 8), np.float32)
    with pytest.raises(OODError, match=message):
        load_outliers(str(store), typed.outliers({"batch_size": size, "order": "block"}), 0, CPU, shape)


def test_damage_in_a_large_store_is_named(store, monkeypatch):
    monkeypatch.setattr(outliers, "RESIDENT", 0)
    data = bytearray(store.read_bytes())
    at = data.find(numbered(300)[150].numpy().tobytes())
    data[at] ^= 0xFF
    store.write_bytes(data)
    source = load_outliers(str(store), typed.outliers({"batch_size": 100, "order": "block"}), 0, CPU, (8, 8, 3))
    with pytest.raises(OODError, match=r"pool\.h5: images .* cannot be read.*damaged"):
        seen(source, 0, 4)
