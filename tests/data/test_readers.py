"""Readers of raw formats, each on small files made here; bundled pictures and noise against their sources."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from workflow_scripts.core import plugins
from workflow_scripts.core.errors import OODError
from workflow_scripts.data.reading import Images

RANDOM = np.random.default_rng(5)


def read(reader: str, root: Path | None = None, **options: object) -> Images:
    """What the reader gives for these options."""
    return plugins.load("data.readers", reader).read(
        plugins.parse_options("data.readers", reader, options, reader), root)


def pixels(images: Images, index: np.ndarray | None = None) -> np.ndarray:
    """All blocks put together, in order; images of one size."""
    index = np.arange(len(images)) if index is None else index
    out = None
    for start, block in images.blocks(index):
        out = np.zeros((len(index), *block.shape[1:]), block.dtype) if out is None else out
        out[start:start + len(block)] = block
    return out


# ---- CIFAR -----------------------------------------------------------------------------------------------------------

def cifar_file(path: Path, labels: np.ndarray) -> np.ndarray:
    """Write random records with label bytes (N, 1 or 2). -> images (N, 32, 32, 3)."""
    images = RANDOM.integers(0, 256, (len(labels), 32, 32, 3), dtype=np.uint8)
    planes = images.transpose(0, 3, 1, 2).reshape(len(labels), -1)
    path.write_bytes(np.concatenate([labels.astype(np.uint8), planes], axis=1).tobytes())
    return images


def test_cifar10_records(tmp_path):
    first = cifar_file(tmp_path / "data_batch_1.bin", np.array([[3], [9]]))
    second = cifar_file(tmp_path / "data_batch_2.bin", np.array([[0]]))
    images = read("cifar_binary", tmp_path, files="data_batch_*.bin")
    assert images.labels.tolist() == [3, 9, 0]
    assert images.names == ["data_batch_1.bin:0", "data_batch_1.bin:1", "data_batch_2.bin:0"]
    assert sorted(images.sources) == ["data_batch_1.bin", "data_batch_2.bin"]
    assert np.array_equal(pixels(images), np.concatenate([first, second]))
    assert np.array_equal(pixels(images, np.array([1, 2])), np.concatenate([first[1:], second]))


@pytest.mark.parametrize(("labels", "expected", "classes"), [("fine", [99, 7], 100), ("coarse", [19, 2], 20)])
def test_cifar100_records(tmp_path, labels, expected, classes):
    stored = cifar_file(tmp_path / "test.bin", np.array([[19, 99], [2, 7]]))
    images = read("cifar_binary", tmp_path, files=["none.bin", "test.bin"], records="cifar100", labels=labels)
    assert images.labels.tolist() == expected
    assert len(images.classes) == classes
    assert np.array_equal(pixels(images), stored)


@pytest.mark.parametrize(("content", "words"), [
    (b"\0" * 3072, "3,073"), (b"\0" * 3074, "3,073"), (b"", "3,073"), (b"\x0a" + b"\0" * 3072, "label 10")])
def test_cifar_of_another_form_is_refused(tmp_path, content, words):
    (tmp_path / "x.bin").write_bytes(content)
    with pytest.raises(OODError, match=words) as caught:
        read("cifar_binary", tmp_path, files="x.bin")
    assert "x.bin" in str(caught.value)


def test_missing_file_names_the_alternatives(tmp_path):
    with pytest.raises(OODError, match="a.bin or b.bin not found below the data root .*OOD_DATA"):
        read("cifar_binary", tmp_path, files=["a.bin", "b.bin"])
    with pytest.raises(OODError, match="no data root is set"):
        read("cifar_binary", None, files="a.bin")


# ---- SVHN ------------------------------------------------------------------------------------------------------------

def test_svhn_mat(tmp_path):
    x = RANDOM.integers(0, 256, (32, 32, 3, 5), dtype=np.uint8)
    scipy.io.savemat(tmp_path / "t.mat", {"X": x, "y": np.array([[10], [1], [9], [10], [5]], np.uint8)})
    images = read("svhn_mat", tmp_path, files="t.mat")
    assert images.labels.tolist() == [0, 1, 9, 0, 5]
    assert np.array_equal(pixels(images), x.transpose(3, 0, 1, 2))


def good_mat() -> bytes:
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"X": np.zeros((32, 32, 3, 9), np.uint8), "y": np.ones((9, 1))}, do_compression=True)
    return buffer.getvalue()


@pytest.mark.parametrize(("content", "words"), [
    (b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\0\x02IM" + b"\x89HDF\r\n\x1a\n", "7.3"),
    (good_mat()[:-30], "not a readable MATLAB 5 file"),
    (b"<html>404</html>", "not a readable MATLAB 5 file"),
    (b"", "not a readable MATLAB 5 file"),
])
def test_broken_mat(tmp_path, content, words):
    (tmp_path / "t.mat").write_bytes(content)
    with pytest.raises(OODError, match=words) as caught:
        read("svhn_mat", tmp_path, files="t.mat")
    assert "t.mat" in str(caught.value)


@pytest.mark.parametrize(("arrays", "words"), [
    ({"a": np.zeros(3)}, "neither|X and y expected"),
    ({"X": np.zeros((2, 2, 3, 2), np.uint8), "y": np.ones((3, 1))}, "found X uint8"),
    ({"X": np.zeros((2, 2, 3, 2)), "y": np.ones((2, 1))}, "found X float64"),
    ({"X": np.zeros((2, 2, 3, 2), np.uint8), "y": np.array([[0], [11]])}, "0..11"),
])
def test_mat_with_other_arrays(tmp_path, arrays, words):
    scipy.io.savemat(tmp_path / "t.mat", arrays)
    with pytest.raises(OODError, match=words):
        read("svhn_mat", tmp_path, files="t.mat")


# ---- archives and folders of images ----------------------------------------------------------------------------------

def encoded(mode: str, form: str) -> bytes:
    """An image of 5x4 of uniform colour in a PIL mode."""
    colour = {"L": 100, "P": 3, "CMYK": (0, 255, 255, 0), "RGB": (9, 8, 7), "RGBA": (9, 8, 7, 50), "1": 1}[mode]
    image = Image.new(mode, (5, 4), colour)
    if mode == "P":
        image.putpalette([0, 0, 0] * 3 + [10, 20, 30] + [0, 0, 0] * 252)
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


def tar(path: Path, members: dict[str, bytes], mode: str = "w") -> None:
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize(("mode", "form", "expected", "tolerance"), [
    ("L", "PNG", (100, 100, 100), 0), ("L", "JPEG", (100, 100, 100), 1), ("P", "PNG", (10, 20, 30), 0),
    ("CMYK", "JPEG", (255, 0, 0), 3), ("RGB", "PNG", (9, 8, 7), 0), ("RGBA", "PNG", (9, 8, 7), 0),
    ("1", "PNG", (255, 255, 255), 0)])
def test_every_colour_mode_becomes_rgb(tmp_path, mode, form, expected, tolerance):
    tar(tmp_path / "x.tar", {f"x.{form.lower()}": encoded(mode, form)})
    image = pixels(read("images", tmp_path, files="x.tar"))
    assert image.shape == (1, 4, 5, 3)
    assert np.abs(image.astype(int) - expected).max() <= tolerance


def numbered(n: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2), (n, n, n)).save(buffer, "PNG")
    return buffer.getvalue()


MEMBERS = {"d/b/2.png": numbered(2), "d/a/1.png": numbered(1), "d/c/3.PNG": numbered(3), "d/c/notes.txt": b"no image",
           "d/c/._3.png": b"resource fork", "other/4.png": numbered(4)}


@pytest.mark.parametrize("form", ["w", "w:gz", "w:xz", "folder"])
def test_archive_and_folder_give_the_same(tmp_path, form):
    if form == "folder":
        for name, content in MEMBERS.items():
            (tmp_path / "x" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "x" / name).write_bytes(content)
    else:
        tar(tmp_path / "x", MEMBERS, form)
    images = read("images", tmp_path, files="x", under="d", labels="folders")
    assert images.names == ["d/a/1.png", "d/b/2.png", "d/c/3.PNG"]
    assert images.classes == ("a", "b", "c")
    assert images.labels.tolist() == [0, 1, 2]
    assert pixels(images)[:, 0, 0, 0].tolist() == [1, 2, 3]
    assert pixels(images, np.array([0, 2]))[:, 0, 0, 0].tolist() == [1, 3]
    assert read("images", tmp_path, files="x").labels.tolist() == [-1] * 4


@pytest.mark.parametrize("name", ["../up.png", "/abs.png", "a/../../up.png"])
def test_a_member_outside_of_its_archive_is_refused(tmp_path, name):
    tar(tmp_path / "x.tar", {"a.png": numbered(1), name: numbered(2)})
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OODError, match=f"member '{name}' is a"):
        read("images", tmp_path, files="x.tar")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("bad", [b"", b"\xff\xd8\xff\xe0 broken", encoded("RGB", "JPEG")[:-12], b"<html>"])
def test_corrupt_image_is_named(tmp_path, bad):
    tar(tmp_path / "x.tar", {"1.png": numbered(1), "bad.png": bad, "3.png": numbered(3)})
    with pytest.raises(OODError, match=r"1 image\(s\) cannot be decoded: bad.png .*allow_corrupt: 1"):
        pixels(read("images", tmp_path, files="x.tar"))
    images = read("images", tmp_path, files="x.tar", allow_corrupt=1)
    assert [start for start, _ in images.blocks(np.arange(3))] == [0, 1]  # names are sorted: 1, 3, bad
    assert images.left_out.records()[0]["first"][0].startswith("bad.png (")


def test_corrupt_images_are_all_counted(tmp_path):
    tar(tmp_path / "x.tar", {f"{i}.png": b"" for i in range(7)})
    with pytest.raises(OODError, match=r"7 image\(s\)"):
        pixels(read("images", tmp_path, files="x.tar", allow_corrupt=2))


@pytest.mark.parametrize(("make", "words"), [
    (lambda p: tar(p, {"a.txt": b"x"}), "no image file"),
    (lambda p: p.write_bytes(b"<html>not found</html>" * 99), "not a whole tar or zip archive"),
    (lambda p: p.write_bytes(b""), "not a whole tar or zip archive|no image file"),
    (lambda p: (tar(p, MEMBERS), p.write_bytes(p.read_bytes()[:1700])), "not a whole tar or zip archive"),
    (lambda p: (tar(p, MEMBERS, "w:gz"), p.write_bytes(p.read_bytes()[:-40])), "not a whole tar or zip archive"),
])
def test_an_archive_that_is_none(tmp_path, make, words):
    make(tmp_path / "x.tar")
    with pytest.raises(OODError, match=words) as caught:
        read("images", tmp_path, files="x.tar")
    assert "x.tar" in str(caught.value)


def test_class_folders_are_needed_for_labels(tmp_path):
    tar(tmp_path / "x.tar", {"1.png": numbered(1)})
    words = r"1 image\(s\) have no class, the first 1.png; class folders expected, or labels: none"
    with pytest.raises(OODError, match=words):
        read("images", tmp_path, files="x.tar", labels="folders")


# ---- bundled pictures ------------------------------------------------------------------------------------------------

def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits  # 3 s of import, only here
    expected = load_digits()
    scan, digit, sources = plugins.load("data.readers", "digits").scans()
    assert np.array_equal(scan * 16, expected.images)
    assert np.array_equal(digit, expected.target)
    assert [len(value) for value in sources.values()] == [64]


def test_digits_split_is_stratified_disjoint_and_repeatable():
    part = {p: read("digits", part=p, train_per_class=100, seed=3) for p in ("train", "test", "all")}
    names = {p: set(images.names) for p, images in part.items()}
    assert np.bincount(part["train"].labels).tolist() == [100] * 10
    assert not names["train"] & names["test"]
    assert names["train"] | names["test"] == names["all"]
    assert len(names["all"]) == 1797
    assert read("digits", part="train", train_per_class=100, seed=3).names == part["train"].names
    assert read("digits", part="train", train_per_class=100, seed=4).names != part["train"].names


def test_digits_tint_stays_in_its_range_and_belongs_to_the_image():
    plain, painted = read("digits", classes=[8, 9]), read("digits", classes=[8, 9], tint=0.3)
    grey, colour = pixels(plain), pixels(painted)
    assert (grey == grey[..., :1]).all()
    black, white = grey[..., 0] == 0, grey[..., 0] == 255
    assert 0 <= colour[black].min() < 5  # 0..0.3 and 0.7..1 of 255, nearly filled by 354 images
    assert 70 < colour[black].max() <= round(0.3 * 255)
    assert round(0.7 * 255) - 1 <= colour[white].min() < 184
    assert colour[white].max() > 250
    corners = colour[:, 0, 0]  # always background
    assert len({tuple(corner) for corner in corners.tolist()}) > 300
    everything = read("digits", tint=0.3)
    place = {name: i for i, name in enumerate(everything.names)}
    assert np.array_equal(pixels(everything)[[place[name] for name in painted.names]], colour)
    assert painted.labels.tolist() == (everything.labels[[place[name] for name in painted.names]] - 8).tolist()


def test_digits_class_named_twice():
    with pytest.raises(OODError, match="twice"):
        read("digits", classes=[1, 1])


@pytest.mark.parametrize(("name", "function"), [
    ("astronaut", "astronaut"), ("brick", "brick"), ("camera", "camera"), ("cat", "cat"), ("cell", "cell"),
    ("clock", "clock"), ("coffee", "coffee"), ("coins", "coins"), ("grass", "grass"), ("gravel", "gravel"),
    ("hubble_deep_field", "hubble_deep_field"), ("immunohistochemistry", "immunohistochemistry"),
    ("microaneurysms", "microaneurysms"), ("moon", "moon"), ("page", "page"), ("retina", "retina"),
    ("rocket", "rocket"), ("text", "text")])
def test_pictures_are_scikit_images(name, function):
    import skimage.data
    expected = getattr(skimage.data, function)()
    found = plugins.load("data.readers", "pictures").picture(name)
    # two JPEG decoders (PIL's here, imageio's there) may round differently
    tolerance = 2 if name in ("hubble_deep_field", "retina", "rocket") else 0
    expected = expected[..., None] if expected.ndim == 2 else expected[..., :3]
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= tolerance


def test_faces_are_scikit_images():
    import skimage.data
    images = read("pictures", pictures=["faces"])
    assert len(images) == 100
    assert images.labels.tolist() == [-1] * 100
    assert np.abs(pixels(images)[..., 1] / 255 - skimage.data.lfw_subset()[:100]).max() <= 0.5 / 255 + 1e-6


def test_bundled_pictures_need_no_network():
    code = ("import socket; from pathlib import Path\n"
            "def refuse(*a, **k): raise AssertionError('network')\n"
            "socket.socket.connect = refuse\n"
            "from workflow_scripts.data.readers import pictures\n"
            "assert all(pictures.picture(n).ndim == 3 for n in pictures.PICTURES)\n"
            "assert all(len(pictures.whole(n)) == 100 for n in pictures.WHOLE)\n")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_patches_are_windows_of_the_picture():
    coffee = plugins.load("data.readers", "pictures").picture("coffee")  # 600 x 400
    images = read("pictures", pictures=["coffee"], size=64, stride=100, count=1000)
    assert len(images) == 6 * 4  # corners 0..500 and 0..300
    assert images.names[7] == "coffee:100,100"
    assert np.array_equal(pixels(images)[7], coffee[100:164, 100:164])
    few = read("pictures", pictures=["coffee", "cat"], size=64, stride=100, count=5, seed=1)
    assert len(few) == len(set(few.names)) == 10
    assert set(few.names[:5]) < set(images.names)


@pytest.mark.parametrize(("options", "words"), [
    ({"pictures": ["cofee"]}, "did you mean 'coffee'"), ({"pictures": ["text"], "size": 200}, "do not fit"),
    ({"pictures": ["faces", "brick"]}, "mixes")])
def test_pictures_refuse(options, words):
    with pytest.raises(OODError, match=words):
        read("pictures", **options)


# ---- noise -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", ["gaussian", "blobs"])
def test_noise_is_the_released_one(golden, kind):
    """Golden values: the released loaders run under np.random.seed (goe.npz); every 8th pixel of the first images."""
    expected = np.load(golden / "noise.npz")
    images = read("noise", kind=kind, count=6, seed=int(expected["seed"]))
    assert images.kind == "inputs"
    found = pixels(images)[:len(expected[kind]), :, ::8, ::8]
    assert found.dtype == np.float32
    assert np.abs(found - expected[kind]).max() < 1e-7
    many = pixels(read("noise", kind=kind, count=400, seed=int(expected["seed"]) + 1)).astype(np.float64)
    statistics = [many.mean(), many.std(), many.min(), many.max(), (many == -1).mean(), (many == 1).mean(),
                  *np.quantile(many, [0.5, 0.05, 0.25, 0.75, 0.95])]
    assert np.abs(statistics - expected[f"{kind}400"]).max() < 1e-6


def test_uniform_noise():
    x = pixels(read("noise", kind="uniform", count=400))
    assert x.shape == (400, 3, 32, 32)
    assert -1 <= x.min() < -0.999
    assert 0.999 < x.max() <= 1
    assert abs(x.mean()) < 4 * (1 / 3) ** 0.5 / x.size ** 0.5  # four standard errors
    assert abs(x.std() - 3 ** -0.5) < 1e-3


def test_noise_does_not_depend_on_blocks_or_on_what_is_taken():
    for kind in ("gaussian", "uniform", "blobs"):
        whole = pixels(read("noise", kind=kind, count=1010, size=4))
        assert np.array_equal(whole[:7], pixels(read("noise", kind=kind, count=7, size=4)))
        some = np.array([0, 999, 1000, 1009])
        assert np.array_equal(whole[some], pixels(read("noise", kind=kind, count=1010, size=4), some))
        assert not np.array_equal(whole[:7], pixels(read("noise", kind=kind, count=7, size=4, seed=1)))
