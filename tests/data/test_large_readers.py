"""Readers of the larger and rarer formats, each on small files of the same format; lists to keep; class folders."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import zipfile
from multiprocessing import get_context
from pathlib import Path

import lmdb
import numpy as np
import pytest
from PIL import Image

from tests import typed
from workflow_scripts.core import plugins
from workflow_scripts.core.errors import OODError
from workflow_scripts.data.images.geometry import resize
from workflow_scripts.data.images.store import load_store
from workflow_scripts.data.readers import tiny_images
from workflow_scripts.data.reading import Images
from workflow_scripts.publish_list import publish
from workflow_scripts.stages.export_folders import export
from workflow_scripts.stages.prepare_dataset import prepare

ROOT = Path(__file__).resolve().parents[2]
RANDOM = np.random.default_rng(17)


def read(reader: str, root: Path, **options: object) -> Images:
    parsed = plugins.parse_options("data.readers", reader, options, reader)
    return plugins.load("data.readers", reader).read(parsed, root)


def pixels(images: Images, index: np.ndarray | None = None) -> np.ndarray:
    """All blocks put together, in order; images of one size."""
    index = np.arange(len(images)) if index is None else index
    blocks = dict(images.blocks(index))
    return np.concatenate([blocks[start] for start in sorted(blocks)])


def encoded(value: int, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (6, 5), (value, value, value)).save(buffer, form, lossless=True)
    return buffer.getvalue()


# ---- arrays ----------------------------------------------------------------------------------------------------------

def test_npy_images(tmp_path):
    array = RANDOM.integers(0, 256, (2500, 4, 4, 3), dtype=np.uint8)
    np.save(tmp_path / "x.npy", array)
    images = read("npy_images", tmp_path, files="x.npy")
    assert len(images) == 2500
    assert images.names[2499] == "x.npy:2499"
    assert np.array_equal(pixels(images), array)
    assert np.array_equal(pixels(images, np.array([3, 999, 2400])), array[[3, 999, 2400]])


@pytest.mark.parametrize(("content", "words"), [
    (b"<html>", "not a whole .npy"), (b"", "not a whole .npy"), (np.zeros((3, 4, 4, 3)), "found float64"),
    (np.zeros((3, 48), np.uint8), r"found uint8 \(3, 48\)"), (np.array([{}], object), "not a whole .npy"),
    ("short", "not a whole .npy")])
def test_an_array_that_is_none(tmp_path, content, words):
    path = tmp_path / "x.npy"
    if isinstance(content, np.ndarray):
        np.save(path, content, allow_pickle=True)
    elif content == "short":
        np.save(path, np.zeros((9, 4, 4, 3), np.uint8))
        os.truncate(path, 300)
    else:
        path.write_bytes(content)
    with pytest.raises(OODError, match=words) as caught:
        read("npy_images", tmp_path, files="x.npy")
    assert "x.npy" in str(caught.value)


# ---- 80 Million Tiny Images ------------------------------------------------------------------------------------------

COUNT = 3000


@pytest.fixture(scope="module")
def tagged(tmp_path_factory) -> Path:
    """A file of records, each of which tells its number in many places."""
    root = tmp_path_factory.mktemp("tiny")
    records = np.empty((COUNT, 3072), np.uint8)
    number = np.arange(COUNT)
    records[:, 0::2], records[:, 1::2] = (number % 251)[:, None], (number // 251)[:, None]
    (root / "t.bin").write_bytes(records.tobytes())
    return root


def numbers(images: np.ndarray) -> np.ndarray:
    """Numbers of tagged records; a record made of two gives -1. uint8 (n, 32, 32, 3) -> (n,)."""
    even, odd = images[:, 0::2].reshape(len(images), -1), images[:, 1::2].reshape(len(images), -1)  # rows run fastest
    whole = (even == even[:, :1]).all(1) & (odd == odd[:, :1]).all(1)
    return np.where(whole, even[:, 0].astype(int) + 251 * odd[:, 0].astype(int), -1)


def test_a_record_is_read_in_fortran_order(tmp_path):
    """bgresample 1c: rows run fastest, then columns, then channels, as MATLAB writes a (32, 32, 3) array."""
    image = RANDOM.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    (tmp_path / "t.bin").write_bytes(image.tobytes(order="F") * 2)
    images = read("tiny_images", tmp_path, files="t.bin", records=2)
    assert np.array_equal(pixels(images), np.stack([image, image]))


def _mismatches(records: tiny_images.TinyImages, seed: int, answers) -> None:
    random = np.random.default_rng(seed)
    wrong = 0
    for _ in range(60):
        index = random.integers(0, COUNT, 50)
        wrong += int((numbers(records[index]) != index).sum())
    answers.put(wrong)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_many_processes_read_the_right_records(tagged, start):
    """Spec bgresample 1g-4, acceptance test 12: the released readers return thousands of wrong records here."""
    records = tiny_images.TinyImages(tagged / "t.bin", COUNT)
    context = get_context(start)
    answers = context.SimpleQueue()
    children = [context.Process(target=_mismatches, args=(records, seed, answers)) for seed in range(4)]
    for child in children:
        child.start()
    assert [answers.get() for _ in children] == [0] * 4
    for child in children:
        child.join()


def test_a_shared_file_position_would_not_do(tagged):
    """The negative control: seek and read on one handle, as the released readers do, while a forked worker seeks."""
    with open(tagged / "t.bin", "rb", buffering=0) as file:
        file.seek(7 * 3072)
        child = os.fork()
        if not child:
            file.seek(9 * 3072)
            os._exit(0)
        os.waitpid(child, 0)
        assert file.read(1)[0] == 9  # not 7


def test_block_draw_and_exclusion(tagged):
    left_out = np.array([1, 2, 5, 50, 51, 2999, 3000, 5])  # counted from 1, one twice
    (tagged / "out.txt").write_text("\n".join(map(str, left_out)))
    def taken(**options: object) -> list[int]:
        images = read("tiny_images", tagged, files="t.bin", records=COUNT, **options)
        found = numbers(pixels(images))
        assert list(images.names) == [f"t.bin:{i}" for i in found]
        assert images.labels.tolist() == [-1] * len(found)
        return found.tolist()

    assert taken() == list(range(COUNT))
    assert taken(start=100, count=5) == [100, 101, 102, 103, 104]
    assert taken(exclude="out.txt") == [i for i in range(COUNT) if i + 1 not in left_out]
    assert taken(exclude="out.txt", count=4) == [2, 3, 5, 6]
    assert taken(exclude="out.txt", start=48, count=3) == [48, 51, 52]
    for count in (200, 2993):  # few and all: two ways to draw
        drawn = taken(exclude="out.txt", draw=True, count=count, seed=1)
        assert drawn == sorted(set(drawn)) == taken(exclude="out.txt", draw=True, count=count, seed=1)
        assert len(drawn) == count
        assert not set(drawn) & set((left_out - 1).tolist())
    assert taken(draw=True, count=200, seed=2) != taken(draw=True, count=200, seed=1)


def test_every_image_that_is_there_is_drawn_equally_often():
    options = tiny_images.Options("x", records=60, count=10, draw=True)
    left_out = np.array([0, 7, 8, 59])
    counts = np.zeros(60, int)
    for seed in range(1500):
        counts[tiny_images.choose(tiny_images.Options(**{**options.__dict__, "seed": seed}), left_out)] += 1
    assert counts[left_out].sum() == 0
    there = np.delete(counts, left_out)
    share = 10 / 56
    assert np.abs(there - 1500 * share).max() < 5 * (1500 * share * (1 - share)) ** 0.5


@pytest.mark.parametrize(("options", "words"), [
    ({}, r"243,615,796,224 bytes \(79,302,017 records of 3,072\) expected, found 9,216,000 \(3,000 records\)"),
    ({"records": COUNT + 1}, "truncated or another file"),
    ({"records": COUNT, "start": 2999, "count": 2}, "1 are there"),
    ({"records": COUNT, "count": 9999, "draw": True}, "3,000 are there"), ({"records": COUNT, "draw": True}, "count"),
    ({"records": COUNT, "start": 1, "count": 2, "draw": True}, "without a start"),
    ({"records": COUNT, "exclude": "zero.txt"}, "counts from 1.*found 0"),
    ({"records": COUNT, "exclude": "words.txt"}, "line 1: a list of image numbers, one number a line, expected"),
    ({"records": COUNT, "exclude": "none.txt"}, "none.txt not found")])
def test_a_wrong_size_or_list_is_named(tagged, options, words):
    (tagged / "zero.txt").write_text("0\n5\n")
    (tagged / "words.txt").write_text("five\n")
    with pytest.raises(OODError, match=words):
        read("tiny_images", tagged, files="t.bin", **options)


def test_half_a_record_is_refused(tmp_path):
    (tmp_path / "t.bin").write_bytes(b"\0" * 4000)
    with pytest.raises(OODError, match="no whole number of records"):
        read("tiny_images", tmp_path, files="t.bin", records=1)


# ---- LSUN (classic) --------------------------------------------------------------------------------------------------

@pytest.fixture
def lsun(tmp_path) -> Path:
    with lmdb.open(str(tmp_path / "test_lmdb"), map_size=2**24) as env, env.begin(write=True) as txn:
        for name, value in (("b7", 7), ("a3", 3), ("c9", 9)):
            txn.put(name.encode(), encoded(value, "WEBP"))
    (tmp_path / "test_lmdb" / "lock.mdb").unlink()
    return tmp_path


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_lsun(lsun, form):
    if form == "zip":
        with zipfile.ZipFile(lsun / "test_lmdb.zip", "w") as archive:
            archive.write(lsun / "test_lmdb" / "data.mdb", "test_lmdb/data.mdb")
    before = sorted(lsun.rglob("*"))
    images = read("lsun_lmdb", lsun, files="test_lmdb.zip" if form == "zip" else "test_lmdb")
    assert images.names == ["a3", "b7", "c9"]
    assert pixels(images)[:, 0, 0, 0].tolist() == [3, 7, 9]
    assert pixels(images, np.array([0, 2]))[:, 0, 0, 0].tolist() == [3, 9]
    assert sorted(lsun.rglob("*")) == before  # nothing is written beside the data, no lock


@pytest.mark.parametrize(("damage", "words"), [
    (lambda p: os.truncate(p / "data.mdb", 9000), "not a whole LMDB"),
    (lambda p: (p / "data.mdb").unlink(), "not a whole LMDB"),
    (lambda p: (p / "data.mdb").write_bytes(b"<html>" * 9999), "not a whole LMDB")])
def test_broken_lsun(lsun, damage, words):
    damage(lsun / "test_lmdb")
    with pytest.raises(OODError, match=words):
        read("lsun_lmdb", lsun, files="test_lmdb")


def test_lsun_counts_what_it_cannot_decode(lsun):
    with lmdb.open(str(lsun / "test_lmdb"), map_size=2**24) as env, env.begin(write=True) as txn:
        txn.put(b"b8", b"no picture")
    with pytest.raises(OODError, match=r"1 image\(s\) cannot be decoded: b8 .*allow_corrupt: 1"):
        pixels(read("lsun_lmdb", lsun, files="test_lmdb"))
    images = read("lsun_lmdb", lsun, files="test_lmdb", allow_corrupt=1)
    assert [start for start, _ in images.blocks(np.arange(4))] == [0, 1, 3]
    assert images.left_out.records()[0]["first"][0].startswith("b8 (")


# ---- SC-OOD ----------------------------------------------------------------------------------------------------------

LINES = ("tin/test/1.png {'label': 3, 'sc_label': -1}\n"
         "tin/test/sub dir/2.png {'label': 5, 'sc_label': 7, 'extra': [1, 'x']}\n\n"
         "tin/images/3.png {'label': 0, 'sc_label': -1}\n").replace("sub dir", "sub")
IMAGES = {"tin/test/1.png": 1, "tin/test/sub/2.png": 2, "tin/images/3.png": 3, "tin/test/unlisted.png": 4}


def scood(root: Path, form: str, lines: str = LINES) -> str:
    """SC-OOD's layout as a folder or a zip archive. -> the option `files`."""
    members = {**{f"data/images/{name}": encoded(value) for name, value in IMAGES.items()},
               "data/imglist/benchmark_cifar10/test_tin.txt": lines.encode()}
    if form == "zip":
        with zipfile.ZipFile(root / "scood_benchmark.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return "scood_benchmark.zip"
    for name, content in members.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return "data/images" if form == "images" else "data"


@pytest.mark.parametrize("form", ["images", "whole", "zip"])
@pytest.mark.parametrize(("part", "labels", "values", "expected"), [
    ("ood", "none", [1, 3], [-1, -1]), ("id_like", "sc_label", [2], [7]), ("all", "label", [1, 2, 3], [3, 5, 0])])
def test_scood(tmp_path, form, part, labels, values, expected):
    files = scood(tmp_path, form)
    images = read("scood", tmp_path, files=files, benchmark="cifar10", set="tin", part=part, labels=labels)
    assert pixels(images)[:, 0, 0, 0].tolist() == values
    assert images.labels.tolist() == expected
    assert images.names[0] == {1: "tin/test/1.png", 2: "tin/test/sub/2.png"}[values[0]]


@pytest.mark.parametrize(("line", "words"), [
    ("tin/test/1.png __import__('os').system('touch hit')", "test_tin.txt:2: "), ("tin/test/1.png", "test_tin.txt:2: "),
    ("tin/test/1.png {'label': 1}", "integers label and sc_label"),
    ("tin/test/1.png {'label': 1, 'sc_label': '-1'}", "integers label and sc_label"),
    ("tin/test/9.png {'label': 1, 'sc_label': -1}", "1 of the 3 images .* the first is tin/test/9.png")])
def test_a_line_that_is_none(tmp_path, line, words):
    files = scood(tmp_path, "images", LINES.split("\n", 1)[0] + f"\n{line}\n" + LINES.split("\n", 1)[1])
    with pytest.raises(OODError, match=words):
        read("scood", tmp_path, files=files, benchmark="cifar10", set="tin")
    assert not Path("hit").exists()


def test_a_list_or_part_that_is_not_there(tmp_path):
    files = scood(tmp_path, "images")
    with pytest.raises(OODError, match="imglist/benchmark_cifar10/test_tim.txt is neither.*lists there: tin"):
        read("scood", tmp_path, files=files, benchmark="cifar10", set="tim")
    scood(tmp_path, "images", "tin/test/1.png {'label': 3, 'sc_label': -1}")
    with pytest.raises(OODError, match="no image of part id_like"):
        read("scood", tmp_path, files=files, benchmark="cifar10", set="tin", part="id_like")


# ---- published lists -------------------------------------------------------------------------------------------------

def test_a_drawn_sample_is_published_and_repeated(tmp_path, monkeypatch):
    import workflow_scripts.stages.prepare_dataset
    from workflow_scripts.config import catalogue
    monkeypatch.setattr(workflow_scripts.stages.prepare_dataset, "REPOSITORY", tmp_path)
    monkeypatch.setattr(catalogue, "REPOSITORY", tmp_path)
    with tarfile.open(tmp_path / "p.tar", "w") as archive:
        for i in range(40):
            info = tarfile.TarInfo(f"test_256/Places365_test_{i:08d}.png")
            info.size = len(encoded(i))
            archive.addfile(info, io.BytesIO(encoded(i)))
    row = {"name": "p", "reader": "images", "splits": {"test": {"files": "p.tar"}}}
    drawn = catalogue.Dataset.model_validate({**row, "sample": {"n": 10, "seed": 3}})
    prepare(typed.dataset(drawn.section("test", tmp_path)), tmp_path / "drawn.h5", tmp_path)
    assert publish(tmp_path / "drawn.h5", tmp_path / "lists" / "p.txt") == 10
    text = (tmp_path / "lists" / "p.txt").read_text()
    assert text.startswith('# p (test): 10 images, drawn with {"n": 10, "seed": 3}\n# of p.tar ')

    def kept(names: list[str]) -> list[str]:
        (tmp_path / "lists" / "p.txt").write_text("\n".join(names))
        listed = catalogue.Dataset.model_validate({**row, "keep": "lists/p.txt"})
        prepare(typed.dataset(listed.section("test", tmp_path)), tmp_path / "kept.h5", tmp_path)
        return load_store(tmp_path / "kept.h5").names

    names = load_store(tmp_path / "drawn.h5").names
    assert kept([*text.splitlines(), ""]) == names
    assert kept([name.split("/")[1] for name in names]) == names  # another copy, without the folder
    assert np.array_equal(load_store(tmp_path / "kept.h5").images, load_store(tmp_path / "drawn.h5").images)
    for bad in ([*names, "none.png"], ["00000001.png"], []):
        with pytest.raises(OODError, match="lists/p.txt: (.* do not name exactly one image|the list names no image)"):
            kept(bad)
    before = catalogue.Dataset.model_validate({**row, "keep": "lists/p.txt"}).section("test", tmp_path)
    (tmp_path / "lists" / "p.txt").write_text(text)
    assert catalogue.Dataset.model_validate({**row, "keep": "lists/p.txt"}).section("test", tmp_path) != before
    with pytest.raises(OODError, match="publish_list"):
        prepare(typed.dataset({**before, "keep": ["lists/none.txt", ""]}), tmp_path / "kept.h5", tmp_path)


# ---- class folders ---------------------------------------------------------------------------------------------------

def store(path: Path) -> Path:
    from tests.data.test_store import images_of, random_pixels, write
    write(path, images_of(random_pixels(30), [0, 1, 1] * 10), None, ("dog", "cat"))
    return path


@pytest.mark.parametrize("form", ["x.tar", "x"])
def test_export_as_class_folders(tmp_path, form):
    source = store(tmp_path / "s.h5")
    export(source, tmp_path / form)
    images = read("images", tmp_path, files=form, labels="folders")
    expected = load_store(source)
    order = np.argsort(1 - expected.labels, kind="stable")  # cat, then dog
    assert images.classes == ("cat", "dog")
    assert [name.split("/")[1] for name in images.names] == [f"{i:06d}.png" for i in order]
    assert np.array_equal(pixels(images), expected.images[order])


def test_export_gives_the_same_bytes_and_keeps_what_is_there(tmp_path):
    source = store(tmp_path / "s.h5")
    for name in ("a.tar", "b.tar"):
        export(source, tmp_path / name)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    (tmp_path / "x").mkdir()
    with pytest.raises(OODError, match="exists already"):
        export(source, tmp_path / "x")


def test_export_command_refuses_noise(tmp_path):
    prepare(typed.dataset({
        "dataset": "g", "split": "test", "reader": "noise", "options": {"kind": "gaussian", "count": 3}, "classes": 0,
        "geometry": "native", "limit_per_class": None, "sample": None, "count": 3, "raw": []}), tmp_path / "g.h5", None)
    command = [sys.executable, "-m", "workflow_scripts.stages.export_folders", "--store", tmp_path / "g.h5"]
    done = subprocess.run([*command, "--out", tmp_path / "g.tar"], cwd=ROOT, check=False, text=True, stderr=-1)
    assert done.returncode == 1
    assert "images are expected" in done.stderr
    assert not (tmp_path / "g.tar").exists()


# ---- geometries ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("height", "width"), [(300, 400), (400, 300), (256, 256), (257, 256), (100, 500)])
@pytest.mark.parametrize(("geometry", "resized", "crop", "how"), [
    ("resize256crop224", 256, 224, "BILINEAR"), ("crop224bicubic", 224, 224, "BICUBIC"), ("resize36crop32", 36, 32,
                                                                                         "BILINEAR")])
def test_geometries_of_imagenet_equal_torchvisions(height, width, geometry, resized, crop, how):
    transforms = pytest.importorskip("torchvision.transforms")
    image = RANDOM.integers(0, 256, (height, width, 3), dtype=np.uint8)
    smaller = transforms.Resize(resized, transforms.InterpolationMode[how])
    plan = transforms.Compose([smaller, transforms.CenterCrop(crop)])
    assert np.array_equal(resize(image[None], geometry)[0], np.asarray(plan(Image.fromarray(image))))


def test_a_crop_larger_than_what_it_is_cut_from():
    with pytest.raises(OODError, match="a crop of 40 does not fit into a shorter side of 32"):
        resize(np.zeros((1, 50, 50, 3), np.uint8), "resize32crop40")
