"""Image stores: written whole or not at all, the same bytes twice, damaged ones refused; geometry like torchvision."""

from __future__ import annotations

import json
import time
import tracemalloc
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from workflow_scripts.core.errors import OODError
from workflow_scripts.data.images import store
from workflow_scripts.data.images.geometry import resize
from workflow_scripts.data.images.store import load_store, open_store, write_store
from workflow_scripts.data.reading import Images, Numbered, array_blocks, unlabelled

RANDOM = np.random.default_rng(7)
DEFINITION = {"dataset": "x", "split": "test"}
NATIVE = partial(resize, geometry="native")


def images_of(pixels: np.ndarray, labels: np.ndarray | None = None, **changes: object) -> Images:
    count = len(pixels)
    labels = unlabelled(count) if labels is None else np.asarray(labels, np.int64)
    fields = {"labels": labels, "names": [f"ä{i}" for i in range(count)], "classes": ("a", "b"),
              "sources": {"x.tar": "0" * 64}, "blocks": array_blocks(pixels, 3)}
    return Images(**{**fields, **changes})


def random_pixels(count: int, size: int = 8) -> np.ndarray:
    return RANDOM.integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def write(path: Path, images: Images, index: list[int] | None = None, classes: tuple[str, ...] = ()) -> list[str]:
    index = np.arange(len(images)) if index is None else np.array(index, int)
    return write_store(path, images, index, classes, DEFINITION, NATIVE)


def test_what_is_written_is_read(tmp_path):
    pixels, labels = random_pixels(10), [0, 1] * 5
    write(tmp_path / "x.h5", images_of(pixels, labels), [1, 2, 5, 9], ("a", "b"))
    store = load_store(tmp_path / "x.h5")
    assert store.inputs is None
    assert np.array_equal(store.images, pixels[[1, 2, 5, 9]])
    assert store.images.dtype == np.uint8
    assert store.labels.tolist() == [1, 0, 1, 1]
    assert store.labels.dtype == np.int64
    assert store.names == ["ä1", "ä2", "ä5", "ä9"]
    assert store.classes == ("a", "b")
    sources = {"x.tar": "0" * 64}
    assert store.attrs == {**DEFINITION, "classes": ["a", "b"], "definition": DEFINITION, "sources": sources,
                           "left_out": [], "remarks": []}
    with h5py.File(tmp_path / "x.h5") as file:
        assert file["names"].asstr()[0] == "ä1"
        assert json.loads(file.attrs["classes"]) == ["a", "b"]


def test_inputs_pass_unchanged_and_unused_labels_are_dropped(tmp_path):
    inputs = RANDOM.normal(size=(4, 3, 8, 8)).astype(np.float32)
    write(tmp_path / "x.h5", images_of(inputs, [5, 6, 7, 8], kind="inputs"))
    store = load_store(tmp_path / "x.h5")
    assert store.images is None
    assert np.array_equal(store.inputs, inputs)
    assert store.labels.tolist() == [-1] * 4


def test_the_same_images_give_the_same_bytes(tmp_path):
    pixels = random_pixels(500, 32)
    write(tmp_path / "a.h5", images_of(pixels))
    time.sleep(1.1)  # HDF5 would note seconds
    write(tmp_path / "b.h5", images_of(pixels, blocks=array_blocks(pixels, 500)))
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_blocks_in_any_order_and_with_gaps(tmp_path):
    pixels = random_pixels(400, 32)  # more than one HDF5 chunk
    kept = np.delete(np.arange(400), [0, 5, 341, 399])
    blocks = [(int(i), pixels[i:i + 1]) for i in RANDOM.permutation(kept)]
    left_out = write(tmp_path / "x.h5", images_of(pixels, [0, 1] * 200, blocks=lambda index: iter(blocks)), None,
                     ("a", "b"))
    assert left_out == ["ä0", "ä5", "ä341", "ä399"]
    store = load_store(tmp_path / "x.h5")
    assert np.array_equal(store.images, pixels[kept])
    assert store.labels.tolist() == (kept % 2).tolist()
    assert store.names == [f"ä{i}" for i in kept]


def two_sizes(index: np.ndarray):
    yield 0, random_pixels(1, 8)
    yield 1, random_pixels(1, 9)


@pytest.mark.parametrize(("images", "index", "classes", "words"), [
    (images_of(random_pixels(3)), [], (), "no image is left"),
    (images_of(random_pixels(2), blocks=lambda index: iter(())), None, (), "no image is left"),
    (images_of(random_pixels(3), [0, 0, 0]), None, ("a", "b"), "1 of 2 classes have no image: b"),
    (images_of(random_pixels(3), [0, 1, 2]), None, ("a", "b"), "labels 0..2 with 2 classes"),
    (images_of(random_pixels(3)), None, ("a", "b"), "labels -1..-1 with 2 classes"),
    (images_of(random_pixels(2), blocks=two_sizes), None, (), "ä1: 9x9 pixels .* 8x8; .*geometry"),
])
def test_refused_and_what_was_good_stays(tmp_path, images, index, classes, words):
    path = tmp_path / "x.h5"
    path.write_bytes(b"good")
    with pytest.raises(OODError, match=words):
        write(path, images, index, classes)
    assert [p.name for p in tmp_path.iterdir()] == ["x.h5"]
    assert path.read_bytes() == b"good"


@pytest.fixture
def stored(tmp_path) -> Path:
    write(tmp_path / "x.h5", images_of(random_pixels(400, 32), [0, 1] * 200), None, ("a", "b"))
    return tmp_path / "x.h5"


def flip_a_bit_of_the_pixels(path: Path) -> None:
    content = bytearray(path.read_bytes())
    with h5py.File(path) as file:
        offset = file["images"].id.get_chunk_info(1).byte_offset
    content[offset + 1000] ^= 1
    path.write_bytes(content)


def edit(change):
    """A change made with h5py."""
    def apply(path: Path) -> None:
        with h5py.File(path, "a") as file:
            change(file)
    return apply


def relabel(file: h5py.File) -> None:
    file["labels"][:] = 0


@pytest.mark.parametrize(("damage", "words"), [
    (lambda p: p.write_bytes(p.read_bytes()[:-4000]), "truncated or corrupt"),
    (lambda p: p.write_bytes(b""), "truncated or corrupt"),
    (lambda p: p.write_bytes(b"<html>"), "truncated or corrupt"),
    (flip_a_bit_of_the_pixels, "truncated or corrupt"),
    (lambda p: p.unlink(), "not there; the prepare stage writes it"),
    (edit(lambda f: f.__delitem__("names")), "lacks names"),
    (edit(lambda f: f.__delitem__("images")), "images or inputs"),
    (edit(lambda f: f.attrs.__delitem__("classes")), "lacks classes"),
    (edit(lambda f: f["images"].resize(3, axis=0)), "3 images, 400 labels"),
    (edit(relabel), "1 of 2 classes have no image: b"),
])
def test_damaged_store_is_named(stored, damage, words):
    damage(stored)
    with pytest.raises(OODError, match=words) as caught:
        load_store(stored)
    assert str(stored) in str(caught.value)


def test_empty_store_is_refused(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["images"] = np.empty((0, 8, 8, 3), np.uint8)
        file["labels"], file["names"] = np.empty(0, np.int64), np.empty(0, "S1")
        file.attrs.update(dict.fromkeys(("dataset", "split", "classes", "definition", "sources"), "{}"))
    with pytest.raises(OODError, match="holds no image"), open_store(tmp_path / "x.h5"):
        pass


# ---- geometry --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("height", "width"), [(40, 64), (64, 40), (33, 32), (31, 77), (20, 25), (32, 32), (129, 128)])
@pytest.mark.parametrize("size", [32, 31])
def test_geometry_equals_torchvisions(height, width, size):
    transforms = pytest.importorskip("torchvision.transforms")
    image = RANDOM.integers(0, 256, (height, width, 3), dtype=np.uint8)
    for geometry, target in ((f"squash{size}", (size, size)), (f"crop{size}", size)):
        expected = transforms.CenterCrop(size)(transforms.Resize(target)(Image.fromarray(image)))
        assert np.array_equal(resize(image[None], geometry)[0], np.asarray(expected)), geometry


def test_geometry_native_and_unknown():
    block = random_pixels(2)
    assert resize(block, "native") is block
    assert resize(block, "squash8") is block
    for name in ("squash", "crop0", "natively", "pad32"):
        with pytest.raises(OODError, match="is not known"):
            resize(block, name)


def test_names_of_millions_of_images_take_no_memory_each(tmp_path):
    """80 Million Tiny Images: a list of Python strings would take some 100 bytes each."""
    count = 1_000_000
    kept = np.arange(0, 2 * count, 2)
    with h5py.File(tmp_path / "names.h5", "w") as file:
        tracemalloc.start()
        store._write_names(file, Numbered("tiny_images.bin", np.arange(2 * count)), kept)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert file["names"][123_456].decode() == "tiny_images.bin:246912" and len(file["names"]) == count
        assert file["names"][count - 1].decode() == f"tiny_images.bin:{2 * count - 2}"
    assert peak < 40 * 2**20  # 16 MB of them `np.arange`


def test_names_are_the_same_whether_numbered_or_listed(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "_NAMES", 3)
    numbers = np.array([7, 11, 5, 123, 9])
    for path, names in (("a.h5", Numbered("ü.bin", numbers)), ("b.h5", [f"ü.bin:{i}" for i in numbers])):
        with h5py.File(tmp_path / path, "w") as file:
            store._write_names(file, names, np.array([0, 1, 3, 4]))
            assert [n.decode() for n in file["names"][:]] == ["ü.bin:7", "ü.bin:11", "ü.bin:123", "ü.bin:9"]
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
