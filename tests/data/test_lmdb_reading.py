"""The archive form of large sets: damage named, read by any process, the stages, the real samples."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from multiprocessing import get_context
from pathlib import Path

import lmdb
import numpy as np
import pytest
from filelock import FileLock

from tests import typed
from tests.lmdb_data import MEMBERS, collected, folder, jpeg, packed, tar, zipped
from workflow_scripts.core.errors import OODError
from workflow_scripts.data.archives import packing
from workflow_scripts.data.archives.lmdb_store import Archive
from workflow_scripts.stages import pack_dataset as pack
from workflow_scripts.stages.prepare_dataset import prepare
from workflow_scripts.stages.sections.pack_dataset import PackDataset

ROOT = Path(__file__).resolve().parents[2]


# ---- damage ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("bad", "why"), [
    (b"", "empty file"), (b"\xff\xd8\xff\xe0 broken", "Truncated"), (jpeg(1)[:-200], "truncated"),
    (b"<html>404</html>", "not an image")], ids=["empty", "header", "truncated", "html"])
def test_corrupt_images_are_named_counted_and_allowed(tmp_path, bad, why):
    folder(tmp_path / "x", {**MEMBERS, "n01/bad.JPEG": bad, "n03/worse.JPEG": b""})
    for name in ("first", "again"):  # a second run counts what the first one saw
        with pytest.raises(OODError, match=r"2 image\(s\) cannot be .*: n01/bad.JPEG \(.*allow_corrupt: 2") as caught:
            packed(tmp_path, labels="folders", allow_corrupt=1)
        assert why in str(caught.value), name
        assert not (tmp_path / "x.lmdb").exists()
    archive = packed(tmp_path, labels="folders", allow_corrupt=2)
    assert archive.names == sorted(MEMBERS)
    assert [name for name, _ in archive.corrupt] == ["n01/bad.JPEG", "n03/worse.JPEG"]
    assert [archive.read(i) for i in range(36)] == [MEMBERS[name] for name in archive.names]


@pytest.mark.parametrize("odd", [jpeg(1) + b"\0\0\0", jpeg(2, mode="L"), jpeg(3, mode="CMYK"),
                                 jpeg(4, mode="P", form="PNG"), jpeg(5, form="PNG"), jpeg(6, form="BMP")])
def test_whole_images_of_any_kind_are_kept(tmp_path, odd):
    folder(tmp_path / "x", {"1.jpg": odd})
    assert packed(tmp_path).read(0) == odd


@pytest.mark.parametrize(("make", "words"), [
    (lambda p: p.mkdir(), "no image file"), (lambda p: p.write_bytes(b"<html>" * 999), "not a whole tar or zip"),
    (lambda p: (tar(p, MEMBERS), os.truncate(p, 9000)), "not a whole tar or zip"),
    (lambda p: (tar(p, MEMBERS, "w:gz"), os.truncate(p, 9000)), "not a whole archive"),
    (lambda p: (zipped(p, MEMBERS, 0), os.truncate(p, 9000)), "not a whole"),
    (lambda p: tar(p, {"../up.jpg": jpeg(1)}), r"\.\./up.jpg.* leaves the folder"),
    (lambda p: tar(p, {"/up.jpg": jpeg(1)}), "absolute"),
    (lambda p: folder(p, {"a.jpg": jpeg(1)}), r"1 image\(s\) have no class, the first a.jpg")])
def test_sources_that_are_none(tmp_path, make, words):
    make(tmp_path / "x")
    with pytest.raises(OODError, match=words) as caught:
        packed(tmp_path, labels="folders")
    assert str(caught.value).startswith("dataset 'x' (train): ")
    assert not (tmp_path / "x.lmdb").exists()


def test_links_are_not_followed(tmp_path):
    (tmp_path / "secret.jpg").write_bytes(jpeg(1))
    with tarfile.open(tmp_path / "x", "w") as archive:
        info = tarfile.TarInfo("good.jpg")
        info.size = len(jpeg(2))
        archive.addfile(info, io.BytesIO(jpeg(2)))
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "secret.jpg")
        archive.addfile(link)
    assert packed(tmp_path).names == ["good.jpg"]


def test_too_little_space_is_told_before_the_first_byte(tmp_path, monkeypatch):
    folder(tmp_path / "x", MEMBERS)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 8, 1))
    with pytest.raises(OODError, match="are needed and 1 are free"):
        packed(tmp_path)


def test_full_disk_is_an_error_of_the_system(tmp_path, monkeypatch):
    folder(tmp_path / "x", MEMBERS)

    def full(*arguments):
        raise lmdb.DiskError("mdb_txn_commit: No space left on device")

    monkeypatch.setattr(packing, "key", full)
    with pytest.raises(OSError, match="No space left") as caught:  # the stage tells it in one line
        packed(tmp_path)
    assert caught.value.filename == str(tmp_path / ".x.lmdb.partial")


def test_a_file_that_changes_meanwhile(tmp_path):
    folder(tmp_path / "x", MEMBERS)
    collection = collected(tmp_path)
    (tmp_path / "x" / "n00" / "000.JPEG").write_bytes(jpeg(5, (64, 64)))
    with pytest.raises(OODError, match="n00/000.JPEG has .* when it was listed"):
        packing.pack(collection, tmp_path / "x.lmdb", {}, workers=0)


def test_two_runs_at_the_same_file(tmp_path):
    folder(tmp_path / "x", MEMBERS)
    with FileLock(tmp_path / ".x.lmdb.lock"), pytest.raises(OODError, match="another process is packing it"):
        packed(tmp_path)


@pytest.mark.parametrize(("damage", "words"), [
    (lambda p: p.unlink(), "not there"), (lambda p: p.write_bytes(b""), "not a whole LMDB"),
    (lambda p: p.write_bytes(b"x" * 99999), "not a whole LMDB"), (lambda p: os.truncate(p, 40960), "truncated")])
def test_a_damaged_archive_is_named(tmp_path, damage, words):
    folder(tmp_path / "x", MEMBERS)
    packed(tmp_path)
    damage(tmp_path / "x.lmdb")
    with pytest.raises(OODError, match=words) as caught:
        Archive(tmp_path / "x.lmdb")
    assert "x.lmdb" in str(caught.value)


def test_a_foreign_and_an_unfinished_lmdb(tmp_path):
    path = tmp_path / "x.lmdb"
    with lmdb.open(str(path), subdir=False, lock=False) as env, env.begin(write=True) as txn:
        txn.put(b"a", b"b")
    with pytest.raises(OODError, match="no archive of encoded images"):
        Archive(path)
    path.unlink()
    folder(tmp_path / "x", MEMBERS)
    collection = collected(tmp_path)
    packing._resume(path, "i")
    packing._write(collection, range(9), set(), packing._Progress("i"), path)
    with pytest.raises(OODError, match="an unfinished file.*run the pack stage"):
        Archive(path)


# ---- reading from many processes -------------------------------------------------------------------------------------

def wrong(archive: Archive, contents: dict[str, bytes], seed: int) -> int:
    """How many of 200 random images are not what was packed."""
    numbers = np.random.default_rng(seed).integers(0, len(archive), 200).tolist()
    return sum(archive.read(i) != contents[archive.names[i]] for i in numbers)


def _child(archive: Archive, contents: dict[str, bytes], seed: int, answers) -> None:
    answers.put(wrong(archive, contents, seed))


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_several_processes_read_at_once(tmp_path, start):
    folder(tmp_path / "x", MEMBERS)
    archive = packed(tmp_path)
    assert wrong(archive, MEMBERS, 0) == 0  # open here before the others start
    context = get_context(start)
    answers = context.SimpleQueue()
    children = [context.Process(target=_child, args=(archive, MEMBERS, seed, answers)) for seed in range(3)]
    for child in children:
        child.start()
    assert wrong(archive, MEMBERS, 9) == 0
    assert [answers.get() for _ in children] == [0, 0, 0]
    for child in children:
        child.join()


def test_a_new_file_in_the_place_of_an_old_one_is_seen(tmp_path):
    folder(tmp_path / "x", MEMBERS)
    assert len(packed(tmp_path)) == 36
    shutil.rmtree(tmp_path / "x")
    folder(tmp_path / "x", {"only.jpg": jpeg(7)})
    assert packed(tmp_path).names == ["only.jpg"]


def test_a_number_that_is_none(tmp_path):
    folder(tmp_path / "x", MEMBERS)
    archive = packed(tmp_path)
    for number in (-1, 36):
        with pytest.raises(OODError, match=f"no image {number}; it holds 36"):
            archive.read(number)


# ---- through the stages ----------------------------------------------------------------------------------------------

def test_store_from_the_archive_equals_the_store_from_the_raw_files(tmp_path):
    tar(tmp_path / "x", {**MEMBERS, "n00/grey.png": jpeg(9, mode="L", form="PNG")})
    config = typed.dataset({
        "dataset": "x", "split": "train", "reader": "lmdb_images", "options": {"files": "x", "labels": "folders"},
        "classes": 4, "geometry": "resize20crop16", "limit_per_class": None, "sample": None, "count": 37, "raw": []})
    packed(tmp_path, labels="folders")
    prepare(config, tmp_path / "raw.h5", tmp_path)
    prepare(config, tmp_path / "packed.h5", tmp_path, [str(tmp_path / "x.lmdb")])
    assert (tmp_path / "raw.h5").read_bytes() == (tmp_path / "packed.h5").read_bytes()


def test_command(tmp_path):
    folder(tmp_path / "x", {**MEMBERS, "n00/bad.jpg": b""})
    config = json.dumps({"dataset": "x", "split": "train", "options": {"files": "x", "allow_corrupt": 1}, "raw": []})
    command = [sys.executable, "-m", "workflow_scripts.stages.pack_dataset", "--config", config, "--out",
               tmp_path / "x.lmdb",
               "--data-root", tmp_path]
    done = subprocess.run([*command, "--workers", "2"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "dataset 'x' (train): left out 1 image(s) that cannot be decoded: n00/bad.jpg (empty file)" in done.stderr
    assert Archive(tmp_path / "x.lmdb").definition["options"]["allow_corrupt"] == 1
    done = subprocess.run([*command[:4], config.replace('"x", "allow', '"y", "allow'), *command[5:]], cwd=ROOT,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: dataset 'x' (train): y not found below the data root")
    assert done.stderr.count("\n") == 1


# ---- the real samples ------------------------------------------------------------------------------------------------

@pytest.mark.data
@pytest.mark.parametrize(("files", "options", "count"), [  # counts: the README of the samples
    ("svhn/svhn_train_color.tar", {}, 692), ("textures/dtd_subset.tar", {"labels": "folders", "under": "images"}, 150),
    ("places/miniplaces_subset.tar", {}, 2000), ("imagenet_sample/imagenet_sample_100.tar", {}, 100),
    ("tiny_imagenet/tiny-imagenet-200_train_subset.tar", {"labels": "folders", "under": "tiny-imagenet-200/train"},
     5000)])
def test_real_samples_into_an_archive_and_back(tmp_path, files, options, count):
    root = Path(os.environ["OOD_DATA"])
    config = PackDataset.of(dataset="x", split="train", options={"files": files, **options}, raw=[])
    pack.pack_dataset(config, tmp_path / "x.lmdb", root, workers=1)
    archive = Archive(tmp_path / "x.lmdb")
    assert len(archive) == count
    number = {name: i for i, name in enumerate(archive.names)}
    with tarfile.open(root / files) as raw:
        members = [m for m in raw if m.isreg() and m.name.lower().endswith((".jpg", ".jpeg", ".png"))]
        assert len(members) == count
        assert all(archive.read(number[m.name.removeprefix("./")]) == raw.extractfile(m).read() for m in members)
    if options:
        assert np.bincount(archive.labels).tolist() == [count // len(archive.classes)] * len(archive.classes)


@pytest.mark.data
def test_real_cifar_as_class_folders_into_an_archive_and_back(tmp_path):
    from workflow_scripts.config import catalogue
    from workflow_scripts.data.images.store import load_store
    from workflow_scripts.stages.export_folders import export
    root = Path(os.environ["OOD_DATA"])
    row = catalogue.load(ROOT / "config" / "datasets.yaml")["cifar10"]
    prepare(typed.dataset({**row.section("test", root), "limit": 500}), tmp_path / "a.h5", root)
    export(tmp_path / "a.h5", tmp_path / "x")
    packed(tmp_path, labels="folders")
    section = {**row.section("test", root), "reader": "lmdb_images", "options": {"files": "x", "labels": "folders"},
               "count": 500}
    prepare(typed.dataset(section), tmp_path / "b.h5", tmp_path, [str(tmp_path / "x.lmdb")])
    first, second = load_store(tmp_path / "a.h5"), load_store(tmp_path / "b.h5")
    order = np.argsort(first.labels, kind="stable")  # names of classes are in alphabetical order
    assert np.array_equal(first.images[order], second.images)
    assert np.array_equal(first.labels[order], second.labels)
