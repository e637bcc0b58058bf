"""Large sets inside the workflow: raw files to an LMDB file, to a store; only what changed reruns."""

from __future__ import annotations

import io
import shutil
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
from PIL import Image

from tests import typed
from tests.checkout import copy, snakemake, would_run
from tests.lmdb_data import MEMBERS, folder, jpeg, packed, tar
from tests.web_server import good, serving
from workflow_scripts.config.catalogue import load
from workflow_scripts.config.load import load_config
from workflow_scripts.config.raw import load_sources
from workflow_scripts.core.errors import OODError
from workflow_scripts.data.archives.lmdb_store import Archive
from workflow_scripts.data.images.store import load_store
from workflow_scripts.stages.prepare_dataset import prepare
from workflow_scripts.work.expand import expand
from workflow_scripts.work.plan import Plan

ROOT = Path(__file__).resolve().parents[2]
LMDB = "resources/lmdb/large.test.lmdb"
STORES = ["results/v/data/large.test.h5", "results/v/data/large_half.test.h5"]
ROW = {"reader": "lmdb_images", "options": {"labels": "folders"}, "splits": {"test": {"files": ["x.lmdb", "x"]}},
       "classes": 4, "geometry": "crop16"}


def configuration(**changes) -> dict:
    return {"variant": "v", "threads": 2, "networks": [{"name": "n", "model": "resnet_cifar"}],
            "recipes": [{"name": "r", "label": "R", "method": "cross_entropy", "normalise": "per_image", "training": {
                "epochs": 1, "batch_size": 8, "lr": 0.1, "schedule": {"name": "constant"}}}],
            "scores": [{"name": "msp"}],
            "datasets": {"large": ROW, "large_half": {**ROW, "archive": "large", "classes": 0, "options": {},
                                                      "sample": {"n": 20}}},
            "experiments": [{"paper": "p", "id": "digits", "networks": ["n"], "recipes": ["r"], "scores": ["msp"],
                             "ood": {"far": ["large", "large_half"]}}], **changes}


def write(path: Path, **changes) -> None:
    (path / "v.yaml").write_text(yaml.safe_dump(configuration(**changes)))


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A checkout with both stores, made through one archive."""
    path = copy(tmp_path_factory.mktemp("pack"))
    folder(path / "raw" / "x", MEMBERS)
    write(path)
    done = snakemake(path, *STORES, "--cores", "2", "--configfile", "v.yaml", OOD_DATA=str(path / "raw"))
    assert done.returncode == 0, done.stdout[-3000:]
    return path


def test_sets_of_the_same_files_share_one_archive(finished):
    assert [p.name for p in (finished / "resources" / "lmdb").glob("*.lmdb")] == ["large.test.lmdb"]
    archive = Archive(finished / LMDB)
    assert archive.names == sorted(MEMBERS) and archive.read(5) == MEMBERS[archive.names[5]]
    whole, half = (load_store(finished / name) for name in STORES)
    assert whole.labels.tolist() == [i // 9 for i in range(36)] and whole.images.shape == (36, 16, 16, 3)
    assert len(half.labels) == 20 and set(half.names) < set(whole.names)
    place = [whole.names.index(name) for name in half.names]
    assert np.array_equal(half.images, whole.images[place])


def change(file: str, text: str):
    return lambda path: (path / file).write_text((path / file).read_text() + text)


def rows(**changes):
    return lambda path: write(path, datasets={**configuration()["datasets"], "large": {**ROW, **changes}})


def newer_image(path: Path) -> None:
    folder(path / "raw" / "x", {"n01/new.JPEG": MEMBERS["n00/000.JPEG"]})


@pytest.mark.parametrize(("edit", "pack", "prepare"), [
    (lambda path: None, 0, 0),
    (lambda path: write(path, threads=5), 0, 0),
    (change("workflow_scripts/data/archives/packing.py", "\n# a remark\n"), 0, 0),
    (change("workflow_scripts/data/archives/packing.py", "\nNEW = 1\n"), 1, 2),
    (change("workflow_scripts/data/images/geometry.py", "\nNEW = 1\n"), 0, 2),
    (rows(geometry="squash16"), 0, 1),
    (rows(options={"labels": "folders", "allow_corrupt": 3}), 1, 2),
    (newer_image, 1, 2),
    (lambda path: write(path, limit={"images": 8}), 0, 2),
], ids=["nothing", "threads", "a comment", "packing", "resizing", "a geometry", "an option", "a raw file", "a limit"])
def test_only_what_changed_reruns(finished, tmp_path, edit, pack, prepare):
    path = tmp_path / "moved"
    shutil.copytree(finished, path, symlinks=True)
    edit(path)
    jobs = would_run(path, *STORES, "--configfile", "v.yaml", OOD_DATA=str(path / "raw"))
    assert (jobs["pack_dataset"], jobs["prepare_dataset"]) == (pack, prepare)


def test_a_run_cut_short_packs_nothing(finished, tmp_path):
    """Its few images come from the raw files and are those of the archive."""
    path = tmp_path / "short"
    shutil.copytree(finished, path, symlinks=True)
    shutil.rmtree(path / "resources")
    write(path, variant="short", limit={"images": 8})
    name = "results/short/data/large.test.h5"
    done = snakemake(path, name, "--cores", "1", "--configfile", "v.yaml", OOD_DATA=str(path / "raw"))
    assert done.returncode == 0, done.stdout[-3000:]
    assert not (path / "resources").exists()
    whole, short = load_store(finished / STORES[0]), load_store(path / name)
    assert len(short.labels) == 8
    assert np.array_equal(short.images, whole.images[[whole.names.index(name) for name in short.names]])


def test_a_downloaded_archive_is_packed_and_a_packed_one_is_not_packed_again(tmp_path):
    path = copy(tmp_path)
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        for name, content in MEMBERS.items():
            archive.writestr(name, content)
    row = {**ROW, "splits": {"test": {"files": ["x.lmdb", "pictures.zip"]}}}
    write(path, datasets={"large": row}, experiments=[{**configuration()["experiments"][0], "ood": {"far": ["large"]}}])
    with serving() as server:
        sources = {"pictures.zip": {"urls": [server.url("/p.zip", good(zipped.getvalue()))]}}
        (path / "config" / "sources.yaml").write_text(yaml.safe_dump(sources))
        (path / "empty").mkdir()
        words = ("datasets", "--cores", "2", "--configfile", "v.yaml")
        done = snakemake(path, *words, OOD_DATA=str(path / "empty"))
    assert done.returncode == 0, done.stdout[-3000:]
    assert len(Archive(path / LMDB)) == len(MEMBERS)
    (path / "ready").mkdir()
    shutil.move(path / LMDB, path / "ready" / "x.lmdb")
    assert would_run(path, *words[:1], *words[3:], OOD_DATA=str(path / "ready")) == {
        "prepare_dataset": 1, "datasets": 1}


def test_a_store_as_class_folders(finished):
    """DFB's form of CIFAR: made on request, read again like any class folders."""
    target = "results/v/folders/large.test"
    words = (target, "--cores", "1", "--configfile", "v.yaml")
    done = snakemake(finished, *words, OOD_DATA=str(finished / "raw"))
    assert done.returncode == 0, done.stdout[-3000:]
    store = load_store(finished / STORES[0])
    names = sorted(path.relative_to(finished / target).as_posix() for path in (finished / target).rglob("*.png"))
    assert [name.split("/")[0] for name in names] == [store.classes[label] for label in store.labels]
    for name, image in zip(names, store.images, strict=True):
        assert np.array_equal(np.asarray(Image.open(finished / target / name)), image)
    assert would_run(finished, *words[:1], *words[3:], OOD_DATA=str(finished / "raw")) == {}


def plan(root: Path | None, **changes) -> Plan:
    config = load_config(configuration(**changes), ROOT)
    return expand(config, load(ROOT / "config" / "datasets.yaml", [config.datasets]), root,
                  load_sources(ROOT / "config" / "sources.yaml"))


def test_a_compressed_archive_is_packed_even_for_a_few_images(tmp_path):
    """No image in it can be reached directly."""
    tar(tmp_path / "x.tar.gz", MEMBERS, "w:gz")
    row = {**ROW, "splits": {"test": {"files": ["x.tar", "x.tar.gz"]}}}
    both = {"large": row, "large_half": {**row, "archive": "large"}}
    assert plan(tmp_path, datasets=both, limit={"images": 4}).packed("large_half", "test") == "large"
    tar(tmp_path / "x.tar", MEMBERS)
    assert plan(tmp_path, datasets=both, limit={"images": 4}).packed("large_half", "test") is None
    assert plan(tmp_path, datasets=both).packed("large_half", "test") == "large"


@pytest.mark.parametrize(("archive", "message"), [
    ("larg", "key archive: 'larg' is not known; did you mean 'large'"),
    ("digits", "key archive: 'digits' must be a row with an archive of its own"),
    ("other", "key archive: 'other' must be .* the same `files`")])
def test_an_archive_of_other_files_is_refused(archive, message):
    sets = configuration()["datasets"]
    other = {**ROW, "splits": {"test": {"files": "y"}}}
    with pytest.raises(OODError, match=message):
        plan(None, datasets={**sets, "other": other, "large_half": {**sets["large_half"], "archive": archive}})


def test_seeds_may_be_left_out():
    assert plan(None).config.seeds == [0]


def test_training_and_features_straight_from_the_archive(finished, tmp_path):
    """No pixels are stored; features are those of stored images; nothing runs twice; a lost archive is made anew."""
    path = tmp_path / "decoded"
    shutil.copytree(finished, path, symlinks=True)
    folder(path / "raw" / "y", {name: jpeg(100 + i) for i, name in enumerate(MEMBERS)})
    row = {**ROW, "splits": {"train": {"files": "x"}, "test": {"files": "y"}}, "geometry": "resize20crop16"}
    raw = configuration(variant="decoded", datasets={
        "large": {**row, "pixels": "decoded"}, "same": {**row, "archive": "large"}})
    raw["networks"][0]["options"] = {"blocks": [1, 1, 1, 1], "width": 4}
    raw["recipes"][0]["augment"] = [{"random_resized_crop": {"size": 16}}, {"horizontal_flip": 0.5}]
    raw["experiments"][0] |= {"id": "large", "ood": {"far": ["same"]}}
    (path / "v.yaml").write_text(yaml.safe_dump(raw))
    folders = "large/n/r/seed0"
    wanted = [f"results/decoded/features/{folders}/{name}.h5" for name in ("large.test", "ood")]
    words = (*wanted, "results/decoded/cards.json", "--configfile", "v.yaml")
    done = snakemake(path, *words, "--cores", "2", OOD_DATA=str(path / "raw"))
    assert done.returncode == 0, done.stdout[-3000:]
    with h5py.File(path / "results/decoded/data/large.train.h5") as file:
        assert "images" not in file and file["numbers"][:].tolist() == list(range(36))
        assert len(np.unique(file["file_hashes"])) == 36
        assert file.attrs["archive"] == "resources/lmdb/large.train.lmdb"
    with h5py.File(path / wanted[0]) as ours, h5py.File(path / wanted[1]) as theirs:
        assert ours["features"].shape == (36, 32) and np.array_equal(ours["features"][:],
                                                                       theirs["same.test/features"][:])
    assert would_run(path, *words, OOD_DATA=str(path / "raw")) == {}
    (path / "resources/lmdb/large.train.lmdb").unlink()
    model = f"results/decoded/models/{folders}.pt"
    jobs = would_run(path, model, "--force", "--configfile", "v.yaml", OOD_DATA=str(path / "raw"))
    assert jobs["pack_dataset"] == 1 and jobs["train_network"] == 1


def test_a_store_whose_archive_is_gone_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "x", MEMBERS)
    packed(tmp_path, labels="folders").read(0)
    section = {"dataset": "x", "split": "test", "reader": "lmdb_images", "options": {"files": "x", "labels": "folders"},
               "classes": 4, "geometry": "crop16", "limit_per_class": 5, "sample": None, "count": None, "raw": [],
               "pixels": "decoded"}
    with pytest.raises(OODError, match="pixels: decoded needs the LMDB file of the pack stage"):
        prepare(typed.dataset(section), tmp_path / "x.h5", tmp_path)
    prepare(typed.dataset(section), tmp_path / "x.h5", tmp_path, ["x.lmdb"])
    assert load_store("x.h5").images.shape == (20, 16, 16, 3)
    prepare(typed.dataset({**section, "pixels": "stored"}), tmp_path / "y.h5", tmp_path, ["x.lmdb"])
    assert np.array_equal(load_store("x.h5").images[:], load_store("y.h5").images)
    (tmp_path / "root").mkdir()
    shutil.copy(tmp_path / "x.lmdb", tmp_path / "root")
    (tmp_path / "x.lmdb").unlink()
    monkeypatch.setenv("OOD_DATA", str(tmp_path / "root"))
    assert np.array_equal(load_store("x.h5").images[:], load_store("y.h5").images)
    (tmp_path / "root" / "x.lmdb").unlink()
    with pytest.raises(OODError, match=r"x\.lmdb: the LMDB file that .*x\.h5 refers to is neither here"):
        load_store("x.h5")
    folder(tmp_path / "few" / "x", {name: content for name, content in MEMBERS.items() if name < "n02"})
    packed(tmp_path / "few", labels="folders")
    shutil.copy(tmp_path / "few" / "x.lmdb", tmp_path / "x.lmdb")  # the first one is open in this process
    with pytest.raises(OODError, match=r"x\.lmdb: 18 images, but .*x\.h5 was made of at least 32"):
        load_store("x.h5")
