"""The table of datasets: what it accepts, what it says of bad rows, what it knows about raw files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from workflow_scripts.config import catalogue
from workflow_scripts.core.errors import OODError
from workflow_scripts.work.missing import missing_data

TABLE = Path(__file__).resolve().parents[2] / "config" / "datasets.yaml"
ROW = {"reader": "images", "splits": {"test": {"files": ["a.tar", "b"]}}, "url": "https://example.org/a"}


def row(tmp_path: Path, **changes: object) -> catalogue.Dataset:
    """A checked row named ``x``."""
    table = tmp_path / "table.yaml"
    table.write_text(yaml.safe_dump({"x": {**ROW, **changes}}))
    return catalogue.load(table)["x"]


@pytest.fixture(scope="module")
def shipped() -> dict[str, catalogue.Dataset]:
    return catalogue.load(TABLE)


def test_shipped_rows_are_documented(shipped):
    lacking = [(name, key) for name, entry in shipped.items() for key in ("label", "about", "licence")
               if not getattr(entry, key)]
    assert not lacking
    assert not [name for name, entry in shipped.items() if entry.reader != "noise" and not entry.url]
    assert not [name for name, entry in shipped.items() if entry.reader not in ("images", "lmdb_images", "scood")
                and set(entry.counts) != set(entry.splits)]


def test_pool_shows_other_pictures_than_the_test_sets(shipped):
    def pictures(entry: catalogue.Dataset, split: str) -> set[str]:
        return set(entry.options_of(split)["pictures"])

    tests = [e for e in shipped.values() if e.reader == "pictures" and "test" in e.splits]
    tested = set().union(*(pictures(entry, "test") for entry in tests))
    assert {"faces", "brick", "astronaut"} <= tested
    assert not tested & pictures(shipped["pool"], "train")


@pytest.mark.parametrize(("name", "split", "count"), [  # himplos 1c, npos 3.3, bgresample 1c, goe 2c
    ("cifar10", "train", 50000), ("cifar100", "test", 10000), ("svhn", "test", 26032), ("svhn_10k", "test", 10000),
    ("textures", "test", 5640), ("places365", "test", 10000), ("lsun_c", "test", 10000), ("lsun_r", "test", 10000),
    ("isun", "test", 8925), ("tiny_imagenet", "train", 100000), ("blobs_10k", "test", 10000),
])
def test_counts_of_the_specs(shipped, name, split, count):
    assert shipped[name].counts[split] == count


def test_catalogue_needs_no_numerical_package():
    code = ("import sys; from workflow_scripts.config import catalogue; catalogue.load('config/datasets.yaml'); "
            "print(sorted({'numpy', 'torch', 'PIL', 'h5py', 'scipy', 'skimage', 'sklearn'} & set(sys.modules)))")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=TABLE.parent.parent)
    assert result.stdout == "[]\n", result.stderr


@pytest.mark.parametrize(("changes", "words"), [
    ({"geometri": "native"}, ["x.geometri: unknown key", "did you mean 'geometry'"]),
    ({"geometry": "squash"}, ["x.geometry", "'squash'"]),
    ({"reader": "image"}, ["'image' is not known", "did you mean 'images'"]),
    ({"splits": {"test": {"files": "a", "label": "none"}}}, ["x.splits.test", "'label'", "did you mean 'labels'"]),
    ({"splits": {"test": {}}}, ["x.splits.test.files", "required"]),
    ({"splits": {"tset": {"files": "a"}}}, ["x.splits.tset"]),
    ({"splits": {}}, ["x.splits", "at least one"]),
    ({"sample": {"m": 3}}, ["x.sample.m: unknown key 'm'"]),
    ({"classes": -1}, ["x.classes"]),
    ({"name": "y"}, ["its name is its key"]),
])
def test_bad_row_is_named(tmp_path, changes, words):
    with pytest.raises(OODError) as caught:
        row(tmp_path, **changes)
    message = str(caught.value)
    assert message.startswith("table.yaml: ")
    assert not [word for word in words if word not in message], message


def test_all_problems_are_told_at_once(tmp_path):
    table = tmp_path / "table.yaml"
    table.write_text(yaml.safe_dump({"x": {**ROW, "bad": 1}, "y": {**ROW, "worse": 1}, "A-b": ROW}, sort_keys=False))
    with pytest.raises(OODError) as caught:
        catalogue.load(table)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert "x.bad: unknown key" in lines[0]
    assert "y.worse: unknown key" in lines[1]
    assert "A-b: a dataset's name" in lines[2]


@pytest.mark.parametrize(("text", "words"), [("- a\n", "a mapping from dataset names"), ("a: [\n", "not valid YAML")])
def test_a_table_that_is_none(tmp_path, text, words):
    table = tmp_path / "table.yaml"
    table.write_text(text)
    with pytest.raises(OODError, match=words):
        catalogue.load(table)
    with pytest.raises(OODError, match="not there"):
        catalogue.load(tmp_path / "none.yaml")


def test_own_rows_add_and_replace(shipped):
    own = {"textures": {**ROW, "geometry": "squash128"}, "mine": ROW}
    rows = catalogue.load(TABLE, [own])
    assert rows["textures"].geometry == "squash128"
    assert set(rows) - set(shipped) == {"mine"}
    assert rows["digits"] == shipped["digits"]


def test_a_row_that_replaces_one_is_the_same_set(shipped):
    """Other files or another size under a set's name, yes; another number of images, no: the name would not say it."""
    assert catalogue.load(TABLE, [{"textures": {**ROW, "geometry": "squash128"}}])["textures"].counts == {"test": 5640}
    with pytest.raises(OODError, match=r"datasets: textures\.counts\.test: 150 images, where the table's row of this "
                       r"name has 5,640; .* textures_part: \{of: textures, label: \.\.\., counts: \{test: 150\}\}"):
        catalogue.load(TABLE, [{"textures": {**ROW, "counts": {"test": 150}}}])


def test_a_row_may_be_of_another(shipped):
    rows = catalogue.load(TABLE, [{
        "cifar10_part": {"of": "cifar10", "label": "CIFAR-10 (part)", "counts": {"train": 9000}},
        "imagenet_part": {"of": "imagenet", "label": "ImageNet (part)", "counts": {"train": 9}}}])
    part, whole = rows["cifar10_part"], shipped["cifar10"]
    assert part.counts == {"train": 9000, "test": 10000} and part.label == "CIFAR-10 (part)"
    assert (part.splits, part.classes, part.url) == (whole.splits, whole.classes, whole.url)
    assert catalogue.archive_row(rows["imagenet_part"], rows).name == "imagenet"  # nothing is packed twice


@pytest.mark.parametrize(("own", "message"), [
    ({"of": "cifar11", "label": "x"}, r"datasets: x\.of: 'cifar11' is not known; did you mean 'cifar10'"),
    ({"of": "cifar10"}, r"datasets: x\.label: a row that is of 'cifar10' needs a name of its own"),
])
def test_a_row_of_nothing_or_without_a_name_is_refused(own, message):
    with pytest.raises(OODError, match=message):
        catalogue.load(TABLE, [{"x": own}])


def test_documentation_is_no_part_of_the_definition(tmp_path):
    plain = row(tmp_path).section("test", tmp_path)
    assert row(tmp_path, about="a", licence="b", citation="c", url="d", label="e").section("test", tmp_path) == plain
    assert row(tmp_path, geometry="crop32").section("test", tmp_path) != plain


def test_missing_files_are_named_with_where_to_get_them(tmp_path, shipped):
    (message,) = catalogue.missing(row(tmp_path), "test", tmp_path)
    for words in ("'x' (test)", "a.tar or b", str(tmp_path), "https://example.org/a", "data_root", "OOD_DATA"):
        assert words in message
    assert "not set" in catalogue.missing(row(tmp_path), "test", None)[0]
    assert catalogue.fingerprint(row(tmp_path), "test", tmp_path) is None
    for name in ("digits", "faces", "gaussian"):
        assert catalogue.missing(shipped[name], "test", None) == []
        assert catalogue.fingerprint(shipped[name], "test", None) == []


def test_fingerprint_of_files_and_folders(tmp_path):
    entry = row(tmp_path)
    archive = tmp_path / "a.tar"
    archive.write_bytes(b"x" * 200_000)
    first = catalogue.fingerprint(entry, "test", tmp_path)
    assert [part[:2] for part in first] == [["a.tar", 200_000]]
    for content in (b"y" + b"x" * 199_999, b"x" * 199_999 + b"y", b"x" * 200_001):
        archive.write_bytes(content)
        assert catalogue.fingerprint(entry, "test", tmp_path) != first
    archive.write_bytes(b"x" * 200_000)
    assert catalogue.fingerprint(entry, "test", tmp_path) == first
    archive.unlink()  # the second alternative, a folder
    (tmp_path / "b" / "class").mkdir(parents=True)
    before = catalogue.fingerprint(entry, "test", tmp_path)
    assert before[0][:2] == ["b", "0 files"]
    (tmp_path / "b" / "class" / "1.png").touch()
    assert catalogue.fingerprint(entry, "test", tmp_path) != before


@pytest.mark.parametrize("form", ["{}", "file://{}", "b*.bin"])
def test_forms_of_a_source(tmp_path, form):
    (tmp_path / "b 1.bin").write_bytes(b"1")
    (tmp_path / "b 2.bin").write_bytes(b"2")
    pattern = form.format(str(tmp_path / "b 1.bin").replace(" ", "%20" if form.startswith("file") else " "))
    entry = row(tmp_path, splits={"test": {"files": ["none", pattern]}})
    names = [part[0] for part in catalogue.fingerprint(entry, "test", tmp_path)]
    assert names == (["b 1.bin", "b 2.bin"] if "*" in form else ["b 1.bin"])


@pytest.mark.parametrize(("there", "listed"), [
    ([], True), (["imagenet/ILSVRC2012_img_val.tar"], True), (["imagenet/val/a.JPEG"], True),
    (["imagenet/val/n01/a.JPEG"], False), (["imagenet/val.lmdb"], False),
    (["ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"], False)])
def test_the_development_kit_is_announced_where_it_is_needed(shipped, tmp_path, there, listed):
    for name in there:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    lines = catalogue.lacking(shipped["imagenet"], "test", tmp_path)
    assert len(lines) == listed
    assert not listed or ("dataset 'imagenet' (test): imagenet/ILSVRC2012_devkit_t12.tar.gz or "
                          f"ILSVRC2012_devkit_t12.tar.gz expected below the data root {tmp_path} (it names") in lines[0]
    assert not catalogue.lacking(shipped["imagenet"], "train", tmp_path)


def test_files_beside_the_images_count(shipped, tmp_path):
    """A list to leave out, the development kit, a list of classes: another content, another set."""
    entry = row(tmp_path, reader="tiny_images", options={"exclude": "l.txt"},
                splits={"test": {"files": "a.bin"}})
    (tmp_path / "a.bin").write_bytes(b"x")
    assert "l.txt expected below" in catalogue.lacking(entry, "test", tmp_path)[0]
    alone = catalogue.fingerprint(entry, "test", tmp_path)
    (tmp_path / "l.txt").write_text("1\n")
    first = catalogue.fingerprint(entry, "test", tmp_path)
    (tmp_path / "l.txt").write_text("2\n")
    assert len(alone) == 1 and len(first) == 2 and catalogue.fingerprint(entry, "test", tmp_path) != first
    assert not catalogue.lacking(entry, "test", tmp_path)
    name, digest = shipped["imagenet100"].section("train", None)["only"]
    assert name == "config/lists/imagenet100.txt" and len(digest) == 64


def test_lists_that_are_looked_for_beside_the_images_count(shipped, tmp_path):
    """SC-OOD's, where no option names their folder."""
    entry = row(tmp_path, reader="scood", options={"benchmark": "cifar10", "set": "svhn"},
                splits={"test": {"files": "images"}})
    (tmp_path / "images").mkdir()
    alone = catalogue.fingerprint(entry, "test", tmp_path)
    texts = tmp_path / "imglist" / "benchmark_cifar10" / "test_svhn.txt"
    texts.parent.mkdir(parents=True)
    found = []
    for line in ("a.png {'label': 0, 'sc_label': -1}", "a.png {'label': 0, 'sc_label': 10}"):
        texts.write_text(line)
        found.append(catalogue.fingerprint(entry, "test", tmp_path))
    assert [name for name, *_ in found[0]] == ["images", "imglist"] and found[0] != found[1] and len(alone) == 1


def test_a_run_on_the_official_archives_lists_the_development_kit(tmp_path):
    """With the validation images there and without them."""
    from tests.workflow.test_pack_rule import plan
    experiment = {"paper": "p", "id": "digits", "networks": ["n"], "recipes": ["r"], "scores": ["msp"],
                  "ood": {"far": ["imagenet"]}}
    for there in (False, True):
        if there:
            (tmp_path / "ILSVRC2012_img_val.tar").write_bytes(b"x")
        lines = missing_data(plan(tmp_path, experiments=[experiment]), [("imagenet", "test")], [])
        assert sum("devkit_t12.tar.gz expected" in line for line in lines) == 1
        assert any("archives/ILSVRC2012_img_val.tar (6,744,924,160 bytes" in line for line in lines) != there
