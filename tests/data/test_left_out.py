"""What is an image and what is left out: one rule for every form, and what is left out is counted and named."""

from __future__ import annotations

import io
import os
import stat
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.lmdb_data import folder, packed, tar
from workflow_scripts.core import plugins
from workflow_scripts.core.errors import OODError
from workflow_scripts.data.images.store import load_store
from workflow_scripts.data.reading import Images
from workflow_scripts.reporting.bundle_cards import data_card
from workflow_scripts.stages.make_cards import card
from workflow_scripts.stages.prepare_dataset import prepare
from workflow_scripts.stages.sections.make_cards import CardOf
from workflow_scripts.stages.sections.prepare_dataset import PrepareDataset


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), (value % 256, value // 256 % 256, 7)).save(buffer, "PNG")
    return buffer.getvalue()


def read(reader: str, root: Path, **options: object) -> Images:
    return plugins.load("data.readers", reader).read(
        plugins.parse_options("data.readers", reader, options, reader), root)


def told(images: Images) -> dict[str, list[str]]:
    """Reason -> names of what was left out."""
    return {record["reason"]: record["first"] for record in images.left_out.records()}


# ---- the same files in every form ------------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "b-c", "B", "é", "10", "2", ".hidden", "@eaDir", "__MACOSX", "x.png"])
FILES = st.sampled_from(["1.png", "2.png", "10.PNG", "a b.png", "#.jpg", "ü.png", "._1.png", "notes.txt", "README",
                         "1.gif", "2.png.part"])
PATHS = st.tuples(st.lists(NAMES, min_size=1, max_size=3), FILES).map(lambda parts: "/".join([*parts[0], parts[1]]))
LINKS = st.lists(st.tuples(PATHS, st.one_of(PATHS, st.lists(NAMES, min_size=1, max_size=3).map("/".join),
                                            st.just("gone/1.png"), st.just("."))), max_size=4)


def made(root: Path, files: list[str], links: list[tuple[str, str]]) -> None:
    """The tree as a folder; what has no room in it (a file below a file) is not made. Links are relative."""
    for number, name in enumerate(files):
        try:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(png(number))
        except OSError:
            continue
    for name, target in links:
        try:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).symlink_to(os.path.relpath(root / target, (root / name).parent))
        except OSError:
            continue


def expected(root: Path, here: str = "", trail: tuple[str, ...] = ()) -> set[str]:
    """Names of the images, found in another way: by what the system says of each name."""
    real = os.path.realpath(root / here)
    if real in trail:
        return set()
    names = set()
    for child in os.listdir(root / here):
        name = f"{here}/{child}" if here else child
        if child.startswith(".") or child in ("@eaDir", "__MACOSX"):
            continue
        if os.path.isdir(root / name):
            names |= expected(root, name, (*trail, real))
        elif os.path.isfile(root / name) and child.lower().endswith((".png", ".jpg")):
            names.add(name)
    return names


def as_tar(source: Path, target: Path, mode: str) -> None:
    with tarfile.open(target, mode) as archive:
        archive.add(source, ".")


def as_zip(source: Path, target: Path) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(source.rglob("*"), reverse=True):
            info = zipfile.ZipInfo(path.relative_to(source).as_posix())
            if path.is_symlink():
                info.external_attr = (stat.S_IFLNK | 0o777) << 16
                archive.writestr(info, os.readlink(path))
            elif path.is_file():
                archive.writestr(info, path.read_bytes(), zipfile.ZIP_DEFLATED)


@settings(max_examples=60, deadline=None)
@given(files=st.lists(PATHS, min_size=1, max_size=8, unique=True), links=LINKS)
def test_the_same_files_give_the_same_images_in_every_form(files, links):
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "x").mkdir()
        made(root / "x", files, links)
        for form, mode in (("tar", "w"), ("tar.gz", "w:gz")):
            as_tar(root / "x", root / f"x.{form}", mode)
        as_zip(root / "x", root / "x.zip")
        wanted = expected(root / "x")
        found = []
        for reader in ("images", "lmdb_images"):
            for source in ("x", "x.tar", "x.tar.gz", "x.zip"):
                if not wanted:
                    with pytest.raises(OODError, match="no image file"):
                        read(reader, root, files=source)
                    continue
                images = read(reader, root, files=source, labels="folders")
                content = dict(images.blocks(np.arange(len(images))))
                pixels = [content[i].tobytes() for i in range(len(images))]
                found.append((images.names, images.classes, images.labels.tolist(), pixels, told(images)))
        if not wanted:
            return
        archive = packed(root, labels="folders")
        found.append((archive.names, archive.classes, archive.labels.tolist(), found[0][3],
                      {record["reason"]: record["first"] for record in archive.left_out}))
        assert set(found[0][0]) == wanted and len(found[0][0]) == len(wanted)
        for names, classes, labels, pixels, left_out in found[1:]:
            assert (names, classes, labels, pixels) == found[0][:4]
            assert {why: sorted(of) for why, of in left_out.items()} == {
                why: sorted(of) for why, of in found[0][4].items()}


def test_a_tar_of_tars_is_the_folder_it_unpacks_to(tmp_path):
    members = {"a/1.png": png(1), "a/.ipynb_checkpoints/1-checkpoint.png": png(2), "b/notes.txt": b"",
               "b/2.png": png(3)}
    folder(tmp_path / "x", members)
    inner = {}
    for name in ("a", "b"):
        tar(buffer := io.BytesIO(), {n.removeprefix(f"{name}/"): c for n, c in members.items() if n.startswith(name)})
        inner[f"{name}.tar"] = buffer.getvalue()
    tar(tmp_path / "x.tar", {**inner, "__MACOSX/._a.tar": b"no archive"})
    for reader in ("images", "lmdb_images"):
        of_folder, of_tars = (read(reader, tmp_path, files=files, labels="folders") for files in ("x", "x.tar"))
        assert of_folder.names == of_tars.names == ["a/1.png", "b/2.png"]
        assert told(of_folder) == {"hidden files and folders": ["a/.ipynb_checkpoints"],
                                   "files of another kind (.txt)": ["b/notes.txt"]}
        assert told(of_tars) == {**told(of_folder), "folders of the system": ["__MACOSX"]}


# ---- links -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("reader", ["images", "lmdb_images"])
def test_links_to_class_folders_are_followed_and_loops_noticed(tmp_path, reader):
    """ImageNet-100 is often made so: links to the class folders of another tree."""
    folder(tmp_path / "real", {f"{c}/{i}.png": png(i) for c in "ab" for i in (1, 2)})
    folder(tmp_path / "x", {"c/1.png": png(5)})
    for name in "ab":
        (tmp_path / "x" / name).symlink_to(tmp_path / "real" / name)
    (tmp_path / "x" / "c" / "again").symlink_to(tmp_path / "x")
    (tmp_path / "x" / "c" / "2.png").symlink_to(tmp_path / "real" / "b" / "2.png")
    (tmp_path / "x" / "c" / "3.png").symlink_to("/gone/3.png")
    images = read(reader, tmp_path, files="x", labels="folders")
    assert images.names == ["a/1.png", "a/2.png", "b/1.png", "b/2.png", "c/1.png", "c/2.png"]
    assert images.classes == ("a", "b", "c")
    assert told(images) == {"links to a folder that they lie in": ["c/again"], "links to nothing": ["c/3.png"]}


def linked(path: Path, members: list[tuple[str, bytes, str | bytes]]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind == tarfile.REGTYPE:
                info.size = len(content)
            elif isinstance(content, str):
                info.linkname = content
            archive.addfile(info, io.BytesIO(content) if kind == tarfile.REGTYPE else None)


@pytest.mark.parametrize("reader", ["images", "lmdb_images"])
def test_links_in_an_archive_lead_to_what_lies_in_it(tmp_path, reader):
    (tmp_path / "secret.png").write_bytes(png(99))
    linked(tmp_path / "x.tar", [
        ("a/1.png", tarfile.REGTYPE, png(1)), ("a/hard.png", tarfile.LNKTYPE, "a/1.png"),
        ("a/1.png", tarfile.REGTYPE, png(2)),  # an archive that was appended to: the later one counts
        ("a/soft.png", tarfile.SYMTYPE, "../a/1.png"), ("b", tarfile.SYMTYPE, "a"),
        ("a/out.png", tarfile.SYMTYPE, "../../secret.png"),
        ("a/abs.png", tarfile.SYMTYPE, str(tmp_path / "secret.png")),
        ("a/hardout.png", tarfile.LNKTYPE, "../secret.png"), ("a/gone.png", tarfile.SYMTYPE, "nothing.png"),
        ("a/round.png", tarfile.SYMTYPE, "round.png"), ("a/loop", tarfile.SYMTYPE, "../a"),
        ("a/dev.png", tarfile.CHRTYPE, "")])
    images = read(reader, tmp_path, files="x.tar")
    blocks = dict(images.blocks(np.arange(len(images))))
    assert {name: int(blocks[i][0, 0, 0, 0]) for i, name in enumerate(images.names)} == {
        "a/1.png": 2, "a/hard.png": 1, "a/soft.png": 2, "b/1.png": 2, "b/hard.png": 1, "b/soft.png": 2}
    assert {why: set(names) for why, names in told(images).items()} == {
        "links out of the archive": {f"{at}/{name}" for at in "ab" for name in ("out.png", "abs.png", "hardout.png")},
        "links to nothing": {f"{at}/{name}" for at in "ab" for name in ("gone.png", "round.png")},
        "links to a folder that they lie in": {"a/loop", "b/loop"},
        "devices, pipes and sockets": {"a/dev.png", "b/dev.png"},
        "members that a later one of their name replaces": {"a/1.png"}}


def test_links_of_a_tar_in_a_tar_do_not_leave_it(tmp_path):
    linked(tmp_path / "inner", [("1.png", tarfile.REGTYPE, png(1)), ("2.png", tarfile.SYMTYPE, "../b/3.png")])
    tar(tmp_path / "x.tar", {"b/3.png": png(3), "a.tar": (tmp_path / "inner").read_bytes()})
    images = read("lmdb_images", tmp_path, files="x.tar")
    assert images.names == ["a/1.png", "b/3.png"]
    assert told(images) == {"links out of the archive": ["a/2.png"]}


# ---- what is said, and where -----------------------------------------------------------------------------------------

def section(reader: str, **options: object) -> PrepareDataset:
    return PrepareDataset.of(dataset="mine", split="test", reader=reader, options=options, classes=0,
                             geometry="native", limit_per_class=None, sample=None, count=None, raw=[])


def animated() -> bytes:
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (3, 2), (value, 0, 0)) for value in (40, 50, 60)]
    frames[0].save(buffer, "TIFF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


@pytest.mark.parametrize("reader", ["images", "lmdb_images"])
def test_what_is_left_out_stands_in_the_log_and_in_the_store(tmp_path, reader):
    folder(tmp_path / "x", {"a/1.png": png(1), "a/2.tif": animated(), "a/bad.png": b"<html>", ".Trash/3.png": png(3),
                            "Thumbs.db": b"", "b/Thumbs.db": b""})
    notes = prepare(section(reader, files="x", allow_corrupt=1), tmp_path / "s.h5", tmp_path)
    said = "\n".join(notes)
    for line in ("left out: hidden files and folders: 1 (.Trash)",
                 "left out: files of another kind (.db): 2 (Thumbs.db, b/Thumbs.db)",
                 "left out: images that cannot be decoded: 1 (a/bad.png (",
                 "further pages or frames of a file, not read: 2 (a/2.tif)"):
        assert f"dataset 'mine' (test): {line}" in said
    store = load_store(tmp_path / "s.h5")
    assert store.names == ["a/1.png", "a/2.tif"] and store.images[1, 0, 0, 0] == 40
    assert {record["reason"]: record["count"] for record in store.attrs["left_out"]} == {
        "hidden files and folders": 1, "files of another kind (.db)": 2, "images that cannot be decoded": 1}
    shown = card(CardOf.of(name="mine", path=str(tmp_path / "s.h5"), role="OOD test"))
    assert shown["left_out"][0] == "files of another kind (.db): 2 (Thumbs.db, b/Thumbs.db)"
    assert shown["remarks"] == ["further pages or frames of a file, not read: 2 (a/2.tif)"]
    row = SimpleNamespace(label="Mine", about="", url="", geometry="native", licence="", citation="")
    data = data_card({"mine": row}, {("mine", "test"): tmp_path / "s.h5"}, {"mine": "far"}, "other")
    assert "  - left out: hidden files and folders: 1 (.Trash)\n" in data and "  - further pages or frames" in data
    assert store.attrs["remarks"] == [{"reason": "further pages or frames of a file, not read", "count": 2,
                                       "first": ["a/2.tif"]}]


def test_a_source_of_nothing_but_what_is_left_out_says_so(tmp_path):
    folder(tmp_path / "x", {".hidden/1.png": png(1), "1.gif": b""})
    with pytest.raises(OODError, match=r"no image file; .*left out: files of another kind \(.gif\): 1 \(1.gif\); hid"):
        read("images", tmp_path, files="x")


def test_a_hidden_folder_that_is_asked_for_is_read(tmp_path):
    folder(tmp_path / "x", {".cache/mine/1.png": png(1), ".cache/mine/.2.png": png(2)})
    images = read("images", tmp_path, files="x", under=".cache/mine")
    assert images.names == [".cache/mine/1.png"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow no such name")
def test_a_name_that_is_no_utf8(tmp_path):
    folder(tmp_path / "x", {"a/1.png": png(1)})
    with open(os.fsencode(tmp_path / "x" / "a") + b"/\xe9.png", "wb") as file:
        file.write(png(2))
    as_tar(tmp_path / "x", tmp_path / "x.tar", "w")
    for source in ("x", "x.tar"):
        prepare(section("images", files=source), tmp_path / "s.h5", tmp_path)
        assert load_store(tmp_path / "s.h5").names == ["a/1.png", "a/\\xe9.png"]
    assert packed(tmp_path).names == ["a/1.png", "a/\\xe9.png"]


@pytest.mark.parametrize("first", ["file", "link"])
def test_what_a_folder_of_its_name_replaces_is_counted(tmp_path, first):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name, content in (("b/1.png", png(1)), ("a/2.png", png(2))):
            if name.startswith("a"):
                info = tarfile.TarInfo("a")
                info.type, info.linkname = (tarfile.SYMTYPE, "b") if first == "link" else (tarfile.REGTYPE, "")
                archive.addfile(info, io.BytesIO())
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    images = read("images", tmp_path, files="x.tar")
    assert images.names == ["a/2.png", "b/1.png"]
    assert told(images) == {"files and links that a folder of their name replaces": ["a"]}


def test_a_zip_with_backslashes_has_folders(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name in ("a\\1.png", "b\\1.png", "__MACOSX\\a\\._1.png", "a\\.ipynb_checkpoints\\1.png", "empty\\"):
            archive.writestr(name, png(len(name)))
    images = read("images", tmp_path, files="x.zip", labels="folders")
    assert images.names == ["a/1.png", "b/1.png"] and images.classes == ("a", "b")
    assert sum(record["count"] for record in images.left_out.records()) == 2


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_member_of_a_zip_is_no_image(tmp_path, method):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", method) as archive:
        archive.writestr("a/1.bmp", bytes(range(256)) * 9)
        place = archive.infolist()[0].header_offset + 30 + len("a/1.bmp")
        size = archive.infolist()[0].compress_size
    content = bytearray((tmp_path / "x.zip").read_bytes())
    content[place + size // 2] ^= 1
    (tmp_path / "x.zip").write_bytes(content)
    images = read("images", tmp_path, files="x.zip")
    with pytest.raises(OODError, match=r"a/1\.bmp (has another checksum than the archive states|cannot be read)"):
        list(images.blocks(np.arange(1)))
