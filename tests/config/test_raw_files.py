"""Raw files: local ones, the lock file, the stage and the table of sources."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.web_server import BODY, MD5, SHA256, Server, fetcher, good, in_turn, serving
from workflow_scripts.config import catalogue, raw
from workflow_scripts.core.errors import OODError
from workflow_scripts.data.archives import checksums
from workflow_scripts.stages import fetch_archive as stage
from workflow_scripts.stages.sections.fetch_archive import FetchArchive

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "config" / "sources.yaml"


@pytest.fixture(scope="module")
def shipped() -> dict[str, raw.Source]:
    return raw.load_sources(TABLE)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as one:
        yield one


@pytest.fixture
def fetch(tmp_path, monkeypatch) -> Callable[..., Path]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return fetcher(tmp_path)


# ---- this machine ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("form", [str, Path.as_uri])
def test_local_files_are_used_in_place(fetch, tmp_path, form):
    mine = tmp_path / "my data" / "x%20.tar"
    mine.parent.mkdir()
    mine.write_bytes(BODY)
    path = fetch(form(mine), checksum=[SHA256], offline=True)
    assert path.is_symlink() and path.resolve() == mine
    assert fetch("http://127.0.0.1:9/", checksum=[SHA256]) == path
    mine.unlink()  # a link to nothing is no file: the next address is tried
    with pytest.raises(OODError, match="no such file"):
        fetch(form(mine), offline=True)


def test_wrong_local_file_is_not_used(fetch, tmp_path, server):
    (tmp_path / "mine").write_bytes(BODY[1:])
    path = fetch(str(tmp_path / "mine"), str(tmp_path), server.url("/x", good()), checksum=[MD5])
    assert not path.is_symlink() and path.read_bytes() == BODY


def test_offline_says_what_to_place_where(fetch, server, tmp_path):
    url = server.url("/x", good())
    with pytest.raises(OODError) as error:
        fetch(url, "https://example.org/x", offline=True, size=len(BODY), checksum=[MD5])
    assert str(error.value) == (
        f"dataset 'x': offline: true, so nothing is downloaded. Place this file by hand:\n"
        f"  {tmp_path}/archives/x.tar (512,000 bytes, {MD5}), from {url} or https://example.org/x")
    assert not server.asked
    (tmp_path / "archives" / "x.tar").write_bytes(BODY)
    assert fetch(url, offline=True, checksum=[MD5]).read_bytes() == BODY


# ---- the lock file ---------------------------------------------------------------------------------------------------

def test_first_download_is_recorded_and_later_ones_compared(server, fetch, tmp_path):
    lock, url = tmp_path / "resources" / "checksums.json", server.url("/x", in_turn(good(), good(BODY[::-1])))
    fetch(url, lock=lock).unlink()
    assert json.loads(lock.read_text()) == {"x.tar": {"sha256": SHA256[7:], "size": len(BODY), "url": url}}
    with pytest.raises(OODError, match=rf"sha256 {SHA256[7:]} expected \(recorded in .*checksums.json by the first"):
        fetch(url, lock=lock)
    assert fetch(url, server.url("/y", good()), lock=lock).read_bytes() == BODY
    assert list(checksums.read_lock(lock)) == ["x.tar"]
    (tmp_path / "archives" / "x.tar").write_bytes(b"?")
    with pytest.raises(OODError, match=r"512,000 bytes expected \(recorded in .*\), found 1\. Move it away"):
        fetch(url, lock=lock)


def test_published_checksums_are_not_recorded(server, fetch, tmp_path):
    fetch(server.url("/x", good()), checksum=[MD5], lock=tmp_path / "lock.json")
    assert not (tmp_path / "lock.json").exists()


def test_lock_file_keeps_all_entries_of_many_writers(tmp_path):
    lock = tmp_path / "lock.json"

    def record(i: int) -> None:
        path = tmp_path / f"{i}"
        path.write_text(str(i))
        checksums.Expected(path.name, lock=lock).record(path, f"http://{i}")

    threads = [threading.Thread(target=record, args=(i,)) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {int(name) for name in checksums.read_lock(lock)} == set(range(20))


@pytest.mark.parametrize("text", ["{", "[]", '{"x": 1}', '{"x": {"size": 1}}'])
def test_damaged_lock_file(fetch, tmp_path, text):
    (tmp_path / "lock.json").write_text(text)
    with pytest.raises(OODError, match="not a lock file of checksums"):
        fetch(str(ROOT / "pyproject.toml"), lock=tmp_path / "lock.json")


# ---- the stage -------------------------------------------------------------------------------------------------------

def run_stage(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "workflow_scripts.stages.fetch_archive", *words], cwd=ROOT,
                          text=True, timeout=600,
                          capture_output=True, check=False, env={**os.environ, "NO_PROXY": "127.0.0.1"})


def test_stage(server, tmp_path):
    table = {"x.bin": {"urls": [server.url("/x", good())], "size": len(BODY)}}
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(table))
    row = FetchArchive.taken_from(raw.load_sources(tmp_path / "t.yaml")["x.bin"]).dump()
    out, lock = tmp_path / "archives" / "x.bin", tmp_path / "lock.json"
    done = run_stage("--config", row, "--out", str(out), "--lock", str(lock))
    assert (done.returncode, done.stderr) == (0, "")
    assert out.read_bytes() == BODY
    assert list(checksums.read_lock(lock)) == ["x.bin"]
    out.unlink()
    done = run_stage("--config", row, "--out", str(out), "--offline")
    assert done.returncode == 1
    assert done.stderr.startswith("error: raw file 'x.bin': offline: true")
    assert "Traceback" not in done.stderr


def test_stage_takes_every_shipped_row(shipped, tmp_path, capsys):
    """Offline and with nothing there each ends with what to place where."""
    for name, source in shipped.items():
        with pytest.raises(SystemExit):
            stage.main(["--config", FetchArchive.taken_from(source).dump(), "--out", str(tmp_path / name), "--offline"])
        message = capsys.readouterr().err
        assert f"by hand{':' if source.urls else '. Place it here:'}\n  {tmp_path / name}" in message
        assert all(checksum in message for checksum in source.checksum)


def test_stage_for_a_file_brought_by_hand(tmp_path):
    row = {"name": "x.bin", "by_hand": True, "reason": "it was withdrawn", "where": "your own copy",
           "substitutes": ["y.npy"], "size": 3}
    out = tmp_path / "x.bin"
    done = run_stage("--config", json.dumps(row), "--out", str(out))
    assert done.stderr == (
        f"error: raw file 'x.bin' must be brought by hand. Place it here:\n  {out} (3 bytes), from your own copy; why: "
        "it was withdrawn; instead of it: y.npy\n")
    out.write_bytes(b"123")
    assert run_stage("--config", json.dumps(row), "--out", str(out)).returncode == 0


# ---- the table -------------------------------------------------------------------------------------------------------

def test_shipped_rows_are_documented(shipped):
    assert not [(name, key) for name, row in shipped.items() for key in ("about", "licence", "citation")
                if not getattr(row, key)]


def checksums_of(row: raw.Source) -> set[str]:
    return {one.removeprefix("md5:") for one in row.checksum if one.startswith("md5:")}


@pytest.mark.parametrize(("name", "package", "file"), [
    ("train_32x32.mat", "torchvision", "datasets/svhn.py"),
    ("test_32x32.mat", "torchvision", "datasets/svhn.py"),
    ("dtd-r1.0.1.tar.gz", "torchvision", "datasets/dtd.py"),
    ("test_256.tar", "torchvision", "datasets/places365.py"),
    ("ILSVRC2012_img_train.tar", "torchvision", "datasets/imagenet.py"),
    ("ILSVRC2012_img_val.tar", "torchvision", "datasets/imagenet.py"),
    ("ILSVRC2012_devkit_t12.tar.gz", "torchvision", "datasets/imagenet.py"),
    ("dtd-r1.0.1.tar.gz", "pytorch_ood", "dataset/img/textures.py"),
    ("LSUN.tar.gz", "pytorch_ood", "dataset/img/odin.py"),
    ("LSUN_resize.tar.gz", "pytorch_ood", "dataset/img/odin.py"),
    ("tiny-imagenet-200.zip", "pytorch_ood", "dataset/img/tinyimagenet.py"),
    ("300K_random_images.npy", "pytorch_ood", "dataset/img/tinyimages.py"),
])
def test_checksums_are_those_the_installed_packages_publish(shipped, name, package, file):
    """The package's module (read, not imported) has our md5 next to the file's name."""
    found = importlib.util.find_spec(package)
    if found is None:
        pytest.skip(f"{package} is not installed")
    text = Path(found.origin).with_name(file.split("/")[0]).joinpath(*file.split("/")[1:]).read_text()
    near = re.findall(re.escape(name) + r"""[^0-9a-f](?s:.{0,120}?)["']([0-9a-f]{32})["']""", text)
    assert set(near) == checksums_of(shipped[name])


@pytest.mark.parametrize(("name", "md5"), [  # the table on https://www.cs.toronto.edu/~kriz/cifar.html
    ("cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"),
    ("cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8"),
])
def test_cifar_checksums_are_those_of_the_binary_version(shipped, name, md5):
    assert checksums_of(shipped[name]) == {md5}


def test_withdrawn_and_licensed_files_are_by_hand(shipped):
    by_hand = {name for name, row in shipped.items() if row.by_hand}
    assert by_hand == {"tiny_images.bin", "80mn_cifar_idxs.txt", "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar",
                       "ILSVRC2012_devkit_t12.tar.gz"}
    assert shipped["tiny_images.bin"].size == 79_302_017 * 3072  # bgresample 1c
    assert set(shipped["tiny_images.bin"].substitutes[0].split()) & set(shipped)


def test_every_raw_image_file_is_read_by_a_dataset(shipped):
    """All rows that read a file are found, those made of another row (`of`) and files beside the images too."""
    table = catalogue.load(ROOT / "config" / "datasets.yaml")
    assert {"textures", "textures_squash", "textures_clip"} <= set(catalogue.readers(table, "dtd-r1.0.1.tar.gz"))
    assert "imagenet_32" in catalogue.readers(table, "ILSVRC2012_img_train.tar")
    unread = [name for name in shipped if not catalogue.readers(table, name)]
    assert unread == ["80mn_cifar_idxs.txt"]  # only where a user sets `exclude`


def test_to_place_lists_exactly_what_is_missing(shipped, tmp_path):
    (tmp_path / "LSUN.tar.gz").touch()
    text = raw.to_place(shipped, ["LSUN.tar.gz", "iSUN.tar.gz", "tiny_images.bin"], tmp_path)
    first, second = text.split("\n")
    assert first.startswith(f"  {tmp_path}/iSUN.tar.gz (md5:")
    assert second.startswith(f"  {tmp_path}/tiny_images.bin (243,615,796,224 bytes), from")
    assert "withdr" in second and "300K_random_images.npy" in second
    assert raw.to_place(shipped, ["LSUN.tar.gz"], tmp_path) == ""
    with pytest.raises(OODError, match=r"raw file: 'iSUN.tgz' is not known; did you mean 'iSUN.tar.gz'\?"):
        raw.to_place(shipped, ["iSUN.tgz"], tmp_path)


@pytest.mark.parametrize(("row", "says"), [
    ({}, "at least one of urls expected"),
    ({"urls": ["ftp://a/b"]}, "urls[0]"),
    ({"urls": ["relative/path"]}, "urls[0]"),
    ({"url": ["http://a"]}, "unknown key 'url'; did you mean 'urls'?"),
    ({"urls": ["http://a"], "checksum": ["c32a1d4ab5d03f1284b67883e8d87530"]}, "checksum[0]"),
    ({"urls": ["http://a"], "checksum": [MD5]}, "who publishes the checksum?"),
    ({"urls": ["http://a"], "size": 0}, "size"),
    ({"by_hand": True}, "has a reason and a where"),
    ({"by_hand": True, "reason": "a", "where": "b", "urls": ["http://a"]}, "no urls"),
    (None, "a row is a mapping"),
])
def test_bad_rows(tmp_path, row, says):
    (tmp_path / "t.yaml").write_text(yaml.safe_dump({"a.tar": row}))
    with pytest.raises(OODError) as error:
        raw.load_sources(tmp_path / "t.yaml")
    assert says in str(error.value) and str(error.value).startswith("t.yaml: a.tar")


@pytest.mark.parametrize("name", ["../a.tar", "a/b.tar", ".hidden", ""])
def test_bad_names(tmp_path, name):
    (tmp_path / "t.yaml").write_text(yaml.safe_dump({name: {"urls": ["http://a"]}}))
    with pytest.raises(OODError, match="a file name of letters"):
        raw.load_sources(tmp_path / "t.yaml")


def test_own_rows_replace_shipped_ones():
    own = {"LSUN.tar.gz": {"urls": ["/mnt/data/LSUN.tar.gz"]}}
    table = raw.load_sources(TABLE, own)
    assert table["LSUN.tar.gz"].urls == ["/mnt/data/LSUN.tar.gz"]
    assert table["iSUN.tar.gz"].checksum


def test_another_address_is_the_same_file(shipped):
    """What the fetch rule depends on; else a new mirror in the table would make everyone download again."""
    one = shipped["dtd-r1.0.1.tar.gz"]
    assert one.identity() == {"name": one.name, "checksum": one.checksum, "size": one.size}
    assert one.model_copy(update={"urls": ["file:///a"], "about": "b"}).identity() == one.identity()
    assert FetchArchive.taken_from(one).model_dump(include={"name", "checksum", "size"}) == one.identity()


def test_table_needs_no_numerical_package():
    code = ("import sys; from workflow_scripts.config import raw; raw.load_sources('config/sources.yaml'); "
            "print(sorted({'numpy', 'torch', 'requests', 'filelock', 'tqdm'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, check=True)
    assert done.stdout.strip() == "[]"
