"""Lists of images: what they are known by, which images they find, and what is refused."""

from __future__ import annotations

import gzip
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import pytorch_ood
import scipy.io
import yaml
from PIL import Image

from workflow_scripts.config import catalogue, image_lists
from workflow_scripts.core.errors import OODError
from workflow_scripts.core.files import digests, list_digests, list_lines
from workflow_scripts.core.listed import ListUsed
from workflow_scripts.data.archives.checksums import Expected
from workflow_scripts.data.image_list import in_list, read_list
from workflow_scripts.data.images.store import load_store
from workflow_scripts.data.readers import cifar_binary, idx_images, images, svhn_mat
from workflow_scripts.stages.prepare_dataset import prepare
from workflow_scripts.stages.sections.prepare_dataset import PrepareDataset

ROOT = Path(__file__).resolve().parents[2]
ROWS = catalogue.load(ROOT / "config" / "datasets.yaml")
LISTED = {name: row for name, row in ROWS.items() if row.lists}
PROTOCOL = {  # counted from the lists; OpenOOD v1.5, table of its benchmarks
    "openood_cifar10": 9000, "openood_cifar10_val": 1000, "openood_cifar10_tin_val": 1000,
    "openood_cifar10_cifar100": 9000, "openood_cifar10_tin": 7793, "openood_mnist": 70000, "openood_svhn": 26032,
    "openood_textures": 5640, "openood_cifar10_places365": 35195,
    "openood_cifar100": 9000, "openood_cifar100_val": 1000,
    "openood_cifar100_tin_val": 972, "openood_cifar100_cifar10": 10000, "openood_cifar100_tin": 6526,
    "openood_cifar100_places365": 33773, "openood_imagenet200": 9000, "openood_imagenet200_val": 1000,
    "openood_imagenet": 45000, "openood_imagenet_val": 5000, "openood_openimage_o_val": 1763, "openood_ssb_hard": 49000,
    "openood_ninco": 5879, "openood_inaturalist": 10000, "openood_textures_imagenet": 5160,
    "openood_openimage_o": 15869,
    "openood_imagenet_c": 10000, "openood_imagenet_r": 30000, "openood_imagenet_v2": 10000,
    "openood_imagenet200_c": 2000, "openood_imagenet200_r": 30000, "openood_imagenet200_v2": 2000}


def written(folder: Path, listed: list[str], by: str = "folders", **changes: object) -> tuple[Path, ListUsed]:
    """A list as a file, and what is known of it."""
    path = folder / "list.txt"
    path.write_text("".join(f"{line}\n" for line in listed))
    return path, ListUsed(**{"name": "b/list", "count": len(listed), **list_digests(listed), "by": by, **changes})


def folder_of(folder: Path, names: list[str]) -> Path:
    """Images of one colour each, by name."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (number + 1, 0, 0)).save(folder / name)
    return folder


def reds(found) -> list[int]:
    """The red value of each image, in order."""
    values = [-1] * len(found)
    for start, block in found.blocks(np.arange(len(found))):
        for place, image in enumerate(block, start):
            values[place] = int(image[0, 0, 0])
    return values


def test_the_sets_are_those_of_the_protocol():
    assert {name: row.counts["test"] for name, row in LISTED.items() if "test" in row.lists} == PROTOCOL
    assert ROWS["openood_tin597"].counts["train"] == 29850


def test_each_list_has_a_row_that_reads_it_or_has_an_equal():
    """Lists of one benchmark that equal those of another are read under the other's name."""
    known = image_lists.read().lists
    used = {known[listed.list].lines for row in LISTED.values() for listed in row.lists.values()}
    assert {name for name, one in known.items() if one.lines not in used} == set()


@pytest.mark.data
def test_lists_that_are_there_have_the_published_hashes(tmp_path):
    """All of OpenOOD's CIFAR lists; of ImageNet's those whose paths begin as in OpenOOD."""
    path = Path(os.environ["OOD_DATA"]) / "openood" / "imglists.tar.gz"
    known = image_lists.read().lists
    with tarfile.open(path) as archive:
        there = {member.name.removeprefix("./").removesuffix(".txt") for member in archive if member.isfile()}
    right, other = set(), set()
    for name in there & known.keys():
        row = known[name]
        used = ListUsed(name=name, count=row.count, paths=row.paths, lines=row.lines, by="name")
        try:
            paths, labels = read_list(path, used)
            assert len(paths) == len(labels) == row.count
            right.add(name)
        except OODError as error:
            assert "sha256 of its sorted paths" in str(error)
            other.add(name)
    assert {name for name in known if name.startswith("cifar")} - right == {"cifar10/train_tin597"}
    assert right >= {"imagenet/test_ssb_hard", "imagenet/test_openimage_o"}
    assert other == {"imagenet/test_imagenet", "imagenet/test_ninco", "imagenet/test_textures"}  # another first folder


def test_imagenet200_has_the_lists_that_pytorch_ood_ships():
    """Two public copies differ; the third decides (config/imglists.yaml)."""
    resources = Path(pytorch_ood.__file__).parent / "dataset" / "img" / "resources"
    for name in ("val", "test"):
        lines = list_lines((resources / f"imagenet200_{name}.txt").read_text())
        row = image_lists.read().lists[f"imagenet200/{name}_imagenet200"]
        assert len(lines) == row.count
        assert list_digests(f"imagenet_1k/val/{line}" for line in lines) == {"lines": row.lines, "paths": row.paths}
    classes = (resources / "imagenet200_classes.txt").read_text().split()
    assert (ROOT / "config" / "lists" / "imagenet200.txt").read_text().split() == classes


def test_hashes_do_not_depend_on_order_or_ends_of_lines(tmp_path):
    for name, text in (("a", "x/1.png 0\nx/2.png -1\n"), ("b", "x/2.png -1 \r\nx/1.png 0\r\n\r\n")):
        (tmp_path / name).write_bytes(text.encode())
    one, other = (digests(tmp_path / name, ["lines", "paths", "sha256"]) for name in "ab")
    assert (one["lines"], one["paths"]) == (other["lines"], other["paths"]) and one["sha256"] != other["sha256"]
    assert list_lines("x/2.png -1 \r\n\n") == ["x/2.png -1"]
    expected = Expected("a", checksums=(f"lines:{one['lines']}", f"paths:{one['paths']}"))
    assert not expected.problem(tmp_path / "b")
    (tmp_path / "b").write_text("x/2.png -1\nx/1.png 1\n")
    assert "lines" in expected.problem(tmp_path / "b") and "paths" not in expected.problem(tmp_path / "b")


def test_each_list_can_be_fetched_from_its_mirrors():
    rows = image_lists.sources()
    assert len(rows) == 41 and all(row.checksum[0].startswith("lines:") for row in rows.values())
    assert len({url for row in rows.values() for url in row.urls}) > 90
    assert sum(len(row.urls) > 1 for row in rows.values()) == 40  # of val_imagenet200 one copy alone is right


@pytest.mark.parametrize(("changes", "words"), [
    ({"count": 3}, "3 lines expected, found 2"),
    ({"paths": "0" * 64}, f"sha256 of its sorted paths {'0' * 64} expected"),
    ({"lines": "0" * 64}, "sha256 of its sorted lines"),
])
def test_another_list_is_refused(tmp_path, changes, words):
    path, used = written(tmp_path, ["s/a/1.png -1", "s/b/1.png -1"], **changes)
    with pytest.raises(OODError, match=words) as caught:
        read_list(path, used)
    assert "image list b/list" in str(caught.value) and "config/imglists.yaml" in str(caught.value)


def test_a_list_chooses_and_orders(tmp_path):
    root = folder_of(tmp_path / "set", ["test/a/1.png", "test/a/2.png", "test/b/1.png", "train/a/1.png"])
    found = images.read(images.Options(files=str(root)), None)
    path, used = written(tmp_path, ["s/test/b/1.png 1", "s/test/a/2.png 0"])
    chosen = in_list(found, path, used)
    assert list(chosen.names) == ["s/test/b/1.png", "s/test/a/2.png"] and chosen.labels.tolist() == [1, 0]
    assert reds(chosen) == [3, 2] and chosen.classes == ("0", "1")


def test_folders_between_are_passed_over_and_several_that_fit_are_refused(tmp_path):
    root = folder_of(tmp_path / "c", ["blur/4/n01/x.png", "blur/5/n01/x.png"])
    found = images.read(images.Options(files=str(root)), None)
    path, used = written(tmp_path, ["imagenet_c/blur/5/x.png 0"])
    assert reds(in_list(found, path, used)) == [2]
    path, used = written(tmp_path, ["imagenet_c/blur/x.png 0"])
    with pytest.raises(OODError, match="2 images fit the path imagenet_c/blur/x.png"):
        in_list(found, path, used)


def test_missing_images_are_named_counted_and_refused_unless_allowed(tmp_path):
    root = folder_of(tmp_path / "set", ["1.png"])
    lines = ["s/1.png -1", "s/2.png -1", "s/3.png -1"]
    found = images.read(images.Options(files=str(root)), None)
    path, used = written(tmp_path, lines, allow_missing=1)
    with pytest.raises(OODError, match=r"2 of the 3 images of the list b/list .* s/2.png, s/3.png.*allow_missing: 2"):
        in_list(found, path, used)
    path, used = written(tmp_path, lines, allow_missing=2)
    chosen = in_list(found, path, used)
    assert list(chosen.names) == ["s/1.png"] and len(chosen.left_out) == 2


def test_labels_of_a_list_are_those_of_the_raw_files(tmp_path):
    root = folder_of(tmp_path / "set", ["a/1.png", "b/1.png"])
    found = images.read(images.Options(files=str(root), labels="folders"), None)
    path, used = written(tmp_path, ["s/a/1.png 0", "s/b/1.png 0"])
    with pytest.raises(OODError, match="1 images have another label .* s/b/1.png is 1, 0 in the list"):
        in_list(found, path, used)


def test_numbers_of_mnist_svhn_and_cifar(tmp_path):
    digits = np.array([7, 2, 1], np.uint8)
    for part, count in (("t10k", 2), ("train", 3)):
        header = bytes([0, 0, 8, 3]) + np.array([count, 4, 4], ">i4").tobytes()
        values = np.repeat(np.arange(count, dtype=np.uint8) + (10 if part == "train" else 0), 16)
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + values.tobytes()))
        (tmp_path / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(
            bytes([0, 0, 8, 1]) + np.array([count], ">i4").tobytes() + digits[:count].tobytes()))
    options = idx_images.Options(files=str(tmp_path / "*images*"), label_file=str(tmp_path / "*labels*"))
    mnist = idx_images.read(options, None)
    wanted = ["mnist/test/2_1.jpg -1", "mnist/train/1_2.jpg -1", "mnist/test/7_0.jpg -1"]
    path, used = written(tmp_path, wanted, "mnist")
    assert reds(in_list(mnist, path, used)) == [1, 12, 0]
    path, used = written(tmp_path, ["mnist/test/3_1.jpg -1"], "mnist")
    with pytest.raises(OODError, match="in their official order"):
        in_list(mnist, path, used)

    x = np.zeros((32, 32, 3, 3), np.uint8)
    x[..., 0, :] = np.arange(3)
    scipy.io.savemat(tmp_path / "svhn.mat", {"X": x, "y": np.array([[5], [10], [1]], np.uint8)})
    svhn = svhn_mat.read(svhn_mat.Options(files=str(tmp_path / "svhn.mat")), None)
    path, used = written(tmp_path, ["svhn/test/000002_0.jpg -1", "svhn/test/000001_5.jpg -1"], "svhn")
    assert reds(in_list(svhn, path, used)) == [1, 0]

    for name, labels in (("data_batch_1.bin", [1, 0, 1]), ("data_batch_2.bin", list(range(10)))):
        rows = np.zeros((len(labels), 3073), np.uint8)
        rows[:, 0], rows[:, 1:] = labels, np.arange(len(labels))[:, None] + (100 if name.endswith("2.bin") else 0)
        (tmp_path / name).write_bytes(rows.tobytes())
    cifar = cifar_binary.read(cifar_binary.Options(files=str(tmp_path / "data_batch_*.bin")), None)
    lines = [f"cifar10/train/{name}/0001.png -1" for name in "abcdefghij"] + ["cifar10/train/b/0003.png -1"]
    path, used = written(tmp_path, lines, "cifar")
    assert reds(in_list(cifar, path, used)) == [1, 0, 102, 103, 104, 105, 106, 107, 108, 109, 101]
    path, used = written(tmp_path, lines[:9], "cifar")
    with pytest.raises(OODError, match="names 9 classes, the raw files have 10"):
        in_list(cifar, path, used)


def test_unpacked_folders_count_where_the_official_files_are_not(tmp_path):
    assert catalogue.at_hand(ROWS, tmp_path)["openood_cifar10_cifar100"].reader == "cifar_binary"
    (tmp_path / "images_classic" / "cifar100").mkdir(parents=True)
    row = catalogue.at_hand(ROWS, tmp_path)["openood_cifar10_cifar100"]
    assert row.reader == "images" and row.lists["test"].by == "folders" and row.counts["test"] == 9000
    assert row.name == "openood_cifar10_cifar100" and row.geometry == "native"
    (tmp_path / "cifar100").mkdir()
    (tmp_path / "cifar100" / "test.bin").touch()
    assert catalogue.at_hand(ROWS, tmp_path)["openood_cifar10_cifar100"].reader == "cifar_binary"


@pytest.mark.parametrize(("changes", "words"), [
    ({"lists": {"test": {"list": "cifar10/test_tim"}}}, "'cifar10/test_tim' is not known; did you mean"),
    ({"lists": {"test": {"list": "cifar10/test_tin", "by": "names"}}}, "by"),
    ({"lists": {"test": {"list": "cifar10/test_tin"}}, "counts": {"test": 10000}}, "10,000 images, the list .* 7,793"),
    ({"instead": {"raeder": "images"}}, "instead.raeder: unknown key"),
])
def test_bad_keys_are_named(tmp_path, changes, words):
    table = tmp_path / "table.yaml"
    row = {"reader": "images", "splits": {"test": {"files": "a"}}, **changes}
    table.write_text(yaml.safe_dump({"x": row}))
    with pytest.raises(OODError, match=words):
        catalogue.load(table)


@pytest.mark.data
@pytest.mark.parametrize("name", ["openood_cifar10", "openood_cifar10_cifar100", "openood_cifar100_tin_val"])
def test_real_images_are_chosen_by_their_lists(tmp_path, name):
    root = Path(os.environ["OOD_DATA"])
    path = image_lists.read().there(ROWS[name].lists["test"].list, root)
    section = PrepareDataset.of(**ROWS[name].section("test", root))
    prepare(section, tmp_path / "x.h5", root, image_list=path)
    store = load_store(tmp_path / "x.h5")
    assert len(store.names) == PROTOCOL[name] and store.images.shape[1:] == (32, 32, 3)
    if name == "openood_cifar10":  # the first of the list is number 298 of the airplanes in the official file
        labels = np.fromfile(root / "cifar10" / "test_batch.bin", np.uint8).reshape(-1, 3073)
        airplane = labels[labels[:, 0] == 0][297, 1:].reshape(3, 32, 32).transpose(1, 2, 0)
        assert store.names[0] == "cifar10/test/airplane/0298.png" and np.array_equal(store.images[0], airplane)
        assert np.bincount(store.labels).tolist() == [np.sum(store.labels == k) for k in range(10)]


@pytest.mark.data
def test_numbers_of_mnist_are_official_as_the_labels_in_the_names_say():
    """All 10,000 test images; SVHN's first labels are those that its page shows, and its counts the published ones."""
    root = Path(os.environ["OOD_DATA"])
    known = image_lists.read()
    row = known.lists["cifar10/test_mnist"]
    paths, _ = read_list(known.there("cifar10/test_mnist", root), ListUsed(
        name="cifar10/test_mnist", count=row.count, paths=row.paths, lines=row.lines, by="mnist"))
    labels = idx_images.array(root / "mnist" / "t10k-labels-idx1-ubyte.gz", 1)
    named = dict(path.rpartition("/")[2].removesuffix(".jpg").split("_")[::-1] for path in paths if "/test/" in path)
    assert [int(named[str(number)]) for number in range(10000)] == labels.tolist()


@pytest.mark.data
def test_cifar100_names_are_in_alphabetical_order():
    names = (Path(os.environ["OOD_DATA"]) / "cifar100" / "fine_label_names.txt").read_text().split()
    assert names == sorted(names) and len(names) == 100
