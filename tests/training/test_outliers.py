"""Outliers beside the ID images, held-out images, the epoch that is kept, and the switches of the G-OE release."""

from __future__ import annotations

import itertools
import json

import h5py
import numpy as np
import pytest
import torch
from scipy.special import gammaln
from scipy.stats import kstest

from tests import typed
from workflow_scripts.core.errors import OODError
from workflow_scripts.data.images.scattered import ScatteredRows
from workflow_scripts.data.images.store import write_store
from workflow_scripts.data.reading import Images as Raw
from workflow_scripts.data.reading import array_blocks, unlabelled
from workflow_scripts.methods import cross_entropy, goe, outlier_exposure
from workflow_scripts.methods.base import Method
from workflow_scripts.models import resnet_cifar
from workflow_scripts.networks import checkpoint
from workflow_scripts.stages import train_network as stage
from workflow_scripts.training import outliers, validation
from workflow_scripts.training.loop import Images, Training, batches
from workflow_scripts.training.outliers import Outliers, load_outliers

CPU = torch.device("cpu")
RECIPE = {
    "normalise": {"mean": [0.0, 0.0, 0.0], "std": [1 / 255] * 3}, "augment": [], "method": "goe", "options": {},
    "training": {"epochs": 2, "batch_size": 16, "lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4,
                 "drop_last": False, "schedule": {"name": "constant", "milestones": [], "gamma": 0.1, "floor": 0.0}},
    "outliers": {"batch_size": 8, "order": "shuffled"}, "validation": None, "keep": "last",
}


def numbered(count: int, size: int = 8) -> torch.Tensor:
    """Images whose every pixel is (number // 256, number % 256, 7)."""
    number = torch.arange(count)
    return torch.stack((number // 256, number % 256, torch.full_like(number, 7)), 1).byte()[:, None, None].expand(
        count, size, size, 3).contiguous()


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
