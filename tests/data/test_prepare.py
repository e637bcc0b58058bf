"""The prepare stage: choosing images, its command line, and the real samples through the same rows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from workflow_scripts.config import catalogue
from workflow_scripts.core.errors import OODError
from workflow_scripts.data.archives.imagenet import class_list
from workflow_scripts.data.images.store import load_store
from workflow_scripts.stages.prepare_dataset import first_per_class, listed, main, prepare, select
from workflow_scripts.stages.sections.prepare_dataset import PrepareDataset, Sample

TABLE = Path(__file__).resolve().parents[2] / "config" / "datasets.yaml"
ROWS = catalogue.load(TABLE)


def made(name: str, split: str, folder: Path, root: Path | None = None, **changes: object):
    """The store of a row, with changes to its section."""
    section = PrepareDataset.of(**{**ROWS[name].section(split, root), **changes})
    prepare(section, folder / "x.h5", root)
    return load_store(folder / "x.h5")


def test_first_per_class_is_the_svhn_rule():
    labels = np.array([1, 1, 0, 1, 2, 0, 0, 2])
    kept, seen = [], {}
    for i, label in enumerate(labels.tolist()):  # the rule as the papers' users wrote it: walk and count
        if seen.setdefault(label, 0) < 2:
            kept.append(i)
            seen[label] += 1
    assert first_per_class(labels, 2).tolist() == kept


def test_select():
    labels = np.repeat(np.arange(5), 10)
    rule = PrepareDataset.of(**ROWS["brick"].section("test", None)).model_copy(update={"classes": 5})
    assert select(labels, rule).tolist() == list(range(50))
    assert len(select(labels, rule.model_copy(update={"limit_per_class": 3}))) == 15
    sampled = select(labels, rule.model_copy(update={"sample": Sample(n=20, seed=1)}))
    assert len(set(sampled.tolist())) == 20
    assert (np.diff(sampled) > 0).all()
    assert sampled.tolist() == select(labels, rule.model_copy(update={"sample": Sample(n=20, seed=1)})).tolist()
    assert sampled.tolist() != select(labels, rule.model_copy(update={"sample": Sample(n=20, seed=2)})).tolist()
    assert len(select(labels, rule.model_copy(update={"sample": Sample(n=99, seed=0)}))) == 50
    few = select(labels, rule.model_copy(update={"limit": 10}))
    assert sorted(set(labels[few].tolist())) == [0, 1, 2, 3, 4]
    assert len(few) == 10


def test_sampled_list_is_frozen():
    """numpy.random.RandomState is a frozen stream, so a published list stays true."""
    rule = PrepareDataset.of(**ROWS["brick"].section("test", None)).model_copy(update={"sample": Sample(n=4)})
    assert select(np.zeros(10), rule).tolist() == sorted(np.random.RandomState(0).permutation(10)[:4].tolist())
    assert select(np.zeros(10), rule).tolist() == [2, 4, 8, 9]


def test_svhn_subset_of_1000_per_digit(tmp_path):
    y = np.random.default_rng(0).integers(1, 11, (13000, 1)).astype(np.uint8)
    x = np.zeros((32, 32, 3, len(y)), np.uint8)
    x[0, 0, 0] = y[:, 0] % 10  # each image knows its digit
    (tmp_path / "svhn").mkdir()
    scipy.io.savemat(tmp_path / "svhn" / "test_32x32.mat", {"X": x, "y": y})
    full, subset = (made(name, "test", tmp_path, tmp_path, count=count)
                    for name, count in (("svhn", 13000), ("svhn_10k", 10000)))
    assert len(full.labels) == 13000
    assert np.bincount(subset.labels).tolist() == [1000] * 10
    assert np.array_equal(subset.images[:, 0, 0, 0], subset.labels)
    assert subset.names[:5] == full.names[:5]
    random = made("svhn_random_10k", "test", tmp_path, tmp_path)
    assert len(random.names) == 10000
    assert random.names != subset.names


def test_default_run_sets(tmp_path):
    stores = {(name, split): made(name, split, tmp_path) for name, row in ROWS.items()
              if row.reader in ("digits", "pictures", "noise") and not name.endswith("_10k") for split in row.splits}
    for (name, split), store in stores.items():
        shape = store.inputs.shape[1:] if store.images is None else store.images.shape[1:]
        assert shape == ((3, 32, 32) if ROWS[name].reader == "noise" else (32, 32, 3)), name
        assert len(store.labels) == ROWS[name].counts[split], name
    train, test = stores["digits", "train"], stores["digits", "test"]
    assert np.bincount(train.labels).tolist() == [125] * 8
    assert not set(train.names) & set(test.names)
    assert not set(stores["digits89", "test"].names) & {*train.names, *test.names}
    assert sum(len(store.labels) for store in stores.values()) < 7000  # minutes on two cores


def test_command_writes_the_same_bytes_twice(tmp_path):
    config = json.dumps(ROWS["brick"].section("test", None))
    for name in ("a.h5", "b.h5"):
        subprocess.run([sys.executable, "-m", "workflow_scripts.stages.prepare_dataset", "--config", config, "--out",
                        tmp_path / name],
                       check=True, cwd=TABLE.parent.parent)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    assert PrepareDataset.of(**load_store(tmp_path / "a.h5").attrs["definition"]) == PrepareDataset.load(config)


def test_prepare_imports_neither_torch_nor_scikit_learn(tmp_path):
    code = ("import sys; from pathlib import Path; from workflow_scripts.stages.prepare_dataset import PrepareDataset, "
            "prepare; prepare(PrepareDataset.load(sys.argv[1]), Path(sys.argv[2]), None); "
            "print(sorted({'torch', 'sklearn', 'pandas', 'matplotlib'} & set(sys.modules)))")
    config = json.dumps(ROWS["digits"].section("test", None))
    result = subprocess.run([sys.executable, "-c", code, config, str(tmp_path / "x.h5")], capture_output=True,
                            text=True, cwd=TABLE.parent.parent)
    assert result.stdout == "[]\n", result.stderr


def test_missing_raw_file_is_one_line(tmp_path, capsys):
    config = json.dumps(ROWS["cifar10"].section("test", tmp_path))
    with pytest.raises(SystemExit) as caught:
        main(["--config", config, "--out", str(tmp_path / "x.h5"), "--data-root", str(tmp_path)])
    assert caught.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("error: dataset 'cifar10' (test): cifar10/test_batch.bin or ")
    assert error.count("\n") == 1
    assert not (tmp_path / "x.h5").exists()


@pytest.mark.parametrize(("changes", "words"), [
    ({"classes": 9}, "9 declared, the raw files have 8"),
    ({"options": {"part": "train", "colour": 1}}, "unknown key 'colour'"), ({"geometry": "squish"}, "is not known")])
def test_bad_section_is_named(tmp_path, changes, words):
    with pytest.raises(OODError, match=words) as caught:
        made("digits", "test", tmp_path, **changes)
    assert str(caught.value).startswith("dataset 'digits' (test)")
    assert not list(tmp_path.iterdir())


def test_a_set_with_another_count_than_its_row_is_refused(tmp_path):
    """150 images are not the Textures of a paper, whatever their file is called; a run cut short takes what it gets."""
    said = (r"dataset 'brick' \(test\): 200 images, where the row of the table of datasets states 5,640; "
            r".* datasets: \{brick_part: \{of: brick, label: \.\.\., counts: \{test: 200\}\}\}")
    with pytest.raises(OODError, match=said):
        made("brick", "test", tmp_path, count=5640)
    assert not (tmp_path / "x.h5").exists()
    with pytest.raises(OODError, match="200 images, .* states 199"):
        made("brick", "test", tmp_path, count=199)
    assert len(made("brick", "test", tmp_path, count=5640, limit=50).labels) == 50
    for stated in (952, 902):  # with those that are held out, or without
        assert len(made("pool", "train", tmp_path, hold_out=50, count=stated).labels) == 902


def test_a_part_has_a_row_of_its_own(tmp_path):
    """What the error says to write: all keys of the other row, and a name, a label and a count of its own."""
    extra = {"brick_part": {"of": "brick", "label": "Brick (part)", "options": {"count": 20}, "counts": {"test": 20}}}
    row = catalogue.load(TABLE, [extra])["brick_part"]
    assert (row.options["size"], row.label, row.url) == (32, "Brick (part)", ROWS["brick"].url)
    section = PrepareDataset.of(**row.section("test", None))
    assert prepare(section, tmp_path / "x.h5", None) == [] and len(load_store(tmp_path / "x.h5").labels) == 20


@pytest.mark.data
@pytest.mark.parametrize(("name", "split", "found"), [("cifar10", "train", "10,000 images")])
def test_a_part_of_the_papers_sets_is_refused(tmp_path, name, split, found):
    """At full size a run on a part would end without a word."""
    with pytest.raises(OODError, match=rf"dataset '{name}' \({split}\): {found}, where the row"):
        made(name, split, tmp_path, Path(os.environ["OOD_DATA"]))


@pytest.mark.data
@pytest.mark.parametrize("name", ["textures", "textures_crop32", "textures_128", "textures_imagenet", "places",
                                  "places_crop32", "places_128", "places_imagenet"])
def test_no_sample_stands_in_for_a_set_of_the_papers(name):
    """The samples lie below the data root; only the rows that say so read them."""
    assert catalogue.missing(ROWS[name], "test", Path(os.environ["OOD_DATA"]))
    for row in ROWS.values():
        for part in row.splits:
            sampled = [file for file in catalogue.files(row, part) if "subset.tar" in file]
            assert not sampled or row.name.endswith("_sample") and row.label.endswith("(sample)")


@pytest.mark.data
@pytest.mark.parametrize(("name", "split", "count", "classes"), [  # counts: the README of the samples
    ("cifar10_sample", "train", 10000, 10), ("cifar10", "test", 10000, 10), ("cifar100", "test", 10000, 100),
    ("svhn_sample", "train", 692, 0), ("svhn_sample", "test", 40, 0), ("textures_sample", "test", 150, 0),
    ("places_sample", "test", 2000, 0), ("tiny_imagenet_sample", "train", 5000, 0)])
def test_real_samples(tmp_path, name, split, count, classes):
    root = Path(os.environ["OOD_DATA"])
    assert catalogue.missing(ROWS[name], split, root) == []
    store = made(name, split, tmp_path, root)
    assert store.images.shape == (count, 32, 32, 3)
    assert len(store.classes) == classes
    if classes:
        assert np.bincount(store.labels).min() > 0
    assert store.images.std() > 40  # real pictures, not black ones
    assert all(len(digest) == 64 for digest in store.attrs["sources"].values())


@pytest.mark.data
def test_real_cifar_pixels(tmp_path):
    """The store against the record as the official page describes it: label, then red, green, blue planes."""
    root = Path(os.environ["OOD_DATA"])
    store = made("cifar10", "test", tmp_path, root)
    record = (root / "cifar10" / "test_batch.bin").read_bytes()[7 * 3073:8 * 3073]
    assert store.labels[7] == record[0]
    for y, x, channel in ((0, 0, 0), (3, 5, 1), (31, 30, 2)):
        assert store.images[7, y, x, channel] == record[1 + channel * 1024 + y * 32 + x]
    names = (root / "cifar10" / "batches.meta.txt").read_text().split()
    assert store.classes == tuple(names)


def test_a_list_of_images_is_read_whatever_system_wrote_it(tmp_path):
    """A `#` begins a comment unless it is part of a name; a name that is no UTF-8 is written as it is stored."""
    names = ["a/1.png", "a/b#2.png", "a/3 #x.png", "#4.png", "caf\udce9.png"]
    path = tmp_path / "list.txt"

    def kept(content):
        path.write_bytes(content)
        return [names[i] for i in listed(names, path)]

    assert kept(b"\xef\xbb\xbf1.png\r\n# 3 #x.png, but not this\r\n\r\nb#2.png # a comment\r\n") == names[:2]
    assert kept("3 #x.png\n#4.png\n".encode("utf-16")) == names[2:4]
    assert kept(b"caf\\xe9.png\n") == names[4:]
    with pytest.raises(OODError, match="1 of 2 names .*: b .0 images."):
        kept(b"1.png\nb #2.png\n")
    with pytest.raises(OODError, match="line 2: not UTF-8"):
        kept(b"1.png\ncaf\xe9.png\n")


def test_a_list_of_classes_may_have_a_hash_in_a_name(tmp_path):
    (tmp_path / "classes.txt").write_bytes(b"\xef\xbb\xbf# programming\r\nc# sharp\r\nc++ # not c\r\n#x\r\n")
    assert class_list(str(tmp_path / "classes.txt")) == ["c#", "c++"]
    (tmp_path / "classes.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(OODError, match="line 1: not UTF-8"):
        class_list(str(tmp_path / "classes.txt"))


# ---- classes are names -----------------------------------------------------------------------------------------------

def folders(root: Path, names: list[str]) -> Path:
    """Class folders of one image each, which its number tells from the others."""
    for number, name in enumerate(names):
        (root / "x" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), (number, 50, 90)).save(root / "x" / name / "1.png")
    return root


def labelled(root: Path, classes: int | list[str], reader: str = "images", **options: object) -> dict[str, int]:
    """Class folder -> number of its only image's class in the store, as the class is named there."""
    section = PrepareDataset.of(dataset="mine", split="test", reader=reader, classes=classes, geometry="native",
                                options={"files": "x", "labels": "folders", **options}, limit_per_class=None,
                                sample=None, count=None, raw=[])
    prepare(section, root / "s.h5", root)
    store = load_store(root / "s.h5")
    assert [store.classes[label] for label in store.labels] == [name.split("/")[0] for name in store.names]
    return {name.split("/")[0]: int(label) for name, label in zip(store.names, store.labels, strict=True)}


@pytest.mark.parametrize("reader", ["images", "lmdb_images"])
def test_declared_names_state_the_order_of_the_folders(tmp_path, reader):
    """They renamed the folders: the cat was called dog."""
    folders(tmp_path, ["cat", "dog"])
    assert labelled(tmp_path, 2, reader) == {"cat": 0, "dog": 1}
    assert labelled(tmp_path, ["dog", "cat"], reader) == {"cat": 1, "dog": 0}
    for names, words in ((["dog", "cow"], "without images: cow; not named: cat"),
                         (["dog", "dog"], "not named: cat; named twice: dog")):
        with pytest.raises(OODError, match=rf"dataset 'mine' \(test\): classes: .* by name, each once; {words}"):
            labelled(tmp_path, names, reader)


@pytest.mark.parametrize("reader", ["images", "lmdb_images"])
def test_folders_that_are_numbers_need_an_order(tmp_path, reader):
    folders(tmp_path, ["0", "1", "2", "10"])
    words = r'label 2 would be folder 10 as text, 2 as numbers; .*classes: \["0", "1", "2", "10"\]'
    with pytest.raises(OODError, match=words):
        labelled(tmp_path, 4, reader)
    assert labelled(tmp_path, ["0", "1", "2", "10"], reader) == {"0": 0, "1": 1, "2": 2, "10": 3}
    assert labelled(tmp_path, ["0", "1", "10", "2"], reader) == {"0": 0, "1": 1, "2": 3, "10": 2}


def test_numbers_of_one_length_have_one_order(tmp_path):
    folders(tmp_path, ["00", "01", "10"])
    assert labelled(tmp_path, 3) == {"00": 0, "01": 1, "10": 2}


def test_an_order_of_the_options_and_one_of_the_row_must_agree(tmp_path):
    folders(tmp_path, ["cat", "dog"])
    assert labelled(tmp_path, 2, order=["dog", "cat"]) == labelled(tmp_path, ["dog", "cat"], order=["dog", "cat"])
    with pytest.raises(OODError, match="options state the same classes in another order"):
        labelled(tmp_path, ["cat", "dog"], order=["dog", "cat"])
