"""Reading archives made to do harm, damaged ones, and good ones."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from workflow_scripts.core.errors import OODError
from workflow_scripts.data.archives.unpack import CAP, extract, members

GOOD = {"images/a/1.jpg": b"one" * 1000, "images/b/2.jpg": b"", "labels.txt": b"a\nb\n"}


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", content: bytes = b"") -> tuple:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(content)
    return info, content


def make_tar(path: Path, *entries: tuple, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content))
    return path


def good_tar(path: Path, mode: str = "w") -> Path:
    folder = member("images", tarfile.DIRTYPE)
    return make_tar(path, folder, *(member(name, content=content) for name, content in GOOD.items()), mode=mode)


def make_zip(path: Path, entries: dict[str, bytes], mode: int | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            info = zipfile.ZipInfo("x")
            info.filename = info.orig_filename = name
            info.compress_type = zipfile.ZIP_DEFLATED
            if mode is not None:
                info.external_attr = mode << 16
            archive.writestr(info, content)
    return path


def contents(archive: Path) -> dict[str, bytes]:
    return {one.name: one.read() for one in members(archive)}


def on_disk(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(archive: Path, tmp_path: Path, cap: int = CAP) -> str:
    """The error, the same from reading and from unpacking; unpacking leaves nothing behind, inside or outside."""
    target = tmp_path / "unpacked" / "set"
    target.parent.mkdir(exist_ok=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OODError) as reading:
        for one in members(archive, cap):
            one.read()
    with pytest.raises(OODError) as unpacking:
        extract(archive, target, cap)
    assert sorted(tmp_path.rglob("*")) == before
    assert str(reading.value) == str(unpacking.value)
    assert str(archive) in str(reading.value)
    return str(reading.value)


# ---- good archives ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("name", "mode"), [
    ("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tgz", "w:gz"), ("a.tar.xz", "w:xz"),
])
def test_tar_members_in_order(tmp_path, name, mode):
    archive = good_tar(tmp_path / name, mode)
    assert list(contents(archive).items()) == list(GOOD.items())
    assert [one.size for one in members(archive)] == [len(content) for content in GOOD.values()]


def test_extract_writes_the_same_files(tmp_path):
    folder = extract(good_tar(tmp_path / "a.tar.gz", "w:gz"), tmp_path / "new" / "set")
    assert on_disk(folder) == GOOD
    assert [path.name for path in folder.parent.iterdir()] == ["set"]


def test_zip_and_gz(tmp_path):
    archive = make_zip(tmp_path / "a.zip", {"images/": b"", **GOOD})
    assert contents(archive) == GOOD
    assert on_disk(extract(archive, tmp_path / "set")) == GOOD
    single = tmp_path / "lists.txt.gz"
    single.write_bytes(gzip.compress(b"a list"))
    assert contents(single) == {"lists.txt": b"a list"}


def test_names_are_normalised(tmp_path):
    archive = make_tar(tmp_path / "a.tar", member("./images//a/./1.jpg", content=b"1"))
    assert list(contents(archive)) == ["images/a/1.jpg"]


def test_a_tar_that_ends_with_a_zip_is_a_tar(tmp_path):
    inner = make_zip(tmp_path / "inner.zip", GOOD).read_bytes()
    assert contents(make_tar(tmp_path / "a.tar", member("inner.zip", content=inner))) == {"inner.zip": inner}


def test_tar_of_tars_is_read_forwards(tmp_path):  # the form of ILSVRC2012_img_train.tar
    inner = good_tar(tmp_path / "inner.tar").read_bytes()
    outer = make_tar(tmp_path / "a.tar", member("n01.tar", content=inner), member("n02.tar", content=inner))
    found = [(one.name, image.name, image.read()) for one in members(outer) for image in members(one.open())]
    assert found == [(tar, *item) for tar in ("n01.tar", "n02.tar") for item in GOOD.items()]


@pytest.mark.parametrize(("kind", "link"), [(tarfile.SYMTYPE, "../labels.txt"), (tarfile.LNKTYPE, "labels.txt")])
def test_links_inside_are_read_through_and_never_made(tmp_path, kind, link):
    archive = make_tar(tmp_path / "a.tar", member("labels.txt", content=b"L"), member("x/copy.txt", kind, link))
    folder = extract(archive, tmp_path / "set")
    assert on_disk(folder) == {"labels.txt": b"L", "x/copy.txt": b"L"}
    assert not (folder / "x" / "copy.txt").is_symlink()
    assert (folder / "x" / "copy.txt").stat().st_nlink == 1


def test_modes_of_the_archive_are_not_taken(tmp_path):
    info, content = member("run.sh", content=b"x")
    info.mode, info.uid = 0o6777, 12345
    path = extract(make_tar(tmp_path / "a.tar", (info, content)), tmp_path / "set") / "run.sh"
    assert not path.stat().st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IXUSR)
    assert path.stat().st_uid == os.getuid()


# ---- archives made to do harm ----------------------------------------------------------------------------------------

@pytest.mark.parametrize(("entry", "says"), [
    (member("../evil.txt", content=b"x"), "leaves the folder"),
    (member("images/../../evil.txt", content=b"x"), "leaves the folder"),
    (member("images\\..\\..\\evil.txt", content=b"x"), "leaves the folder"),
    (member("/tmp/evil.txt", content=b"x"), "an absolute path"),
    (member("C:\\evil.txt", content=b"x"), "an absolute path"),
    (member("../outside", tarfile.DIRTYPE), "leaves the folder"),
    (member("link", tarfile.SYMTYPE, "/etc/passwd"), "a link that leads out"),
    (member("x/link", tarfile.SYMTYPE, "../../secret"), "a link that leads out"),
    (member("link", tarfile.LNKTYPE, "../secret"), "a link that leads out"),
    (member("link", tarfile.LNKTYPE, "/etc/passwd"), "a link that leads out"),
    (member("link", tarfile.SYMTYPE, "images"), "no regular file"),
    (member("link", tarfile.SYMTYPE, "link"), "no regular file"),
    (member("device", tarfile.CHRTYPE), "a device or a pipe"),
    (member("device", tarfile.BLKTYPE), "a device or a pipe"),
    (member("pipe", tarfile.FIFOTYPE), "a device or a pipe"),
])
def test_harmful_tar(tmp_path, entry, says):
    archive = make_tar(tmp_path / "a.tar.gz", member("images", tarfile.DIRTYPE), member("images/1.jpg", content=b"1"),
                       entry, mode="w:gz")
    message = refused(archive, tmp_path)
    assert says in message
    assert "fetch it again" in message


def test_write_through_a_link_is_not_possible(tmp_path):
    """First a link to a folder outside, then a file 'in' it: the first is refused."""
    outside = tmp_path / "outside"
    outside.mkdir()
    archive = make_tar(tmp_path / "a.tar", member("d", tarfile.SYMTYPE, str(outside)), member("d/evil", content=b"x"))
    assert "a link that leads out" in refused(archive, tmp_path)
    assert not list(outside.iterdir())


@pytest.mark.parametrize("second", [
    member("a", content=b"2"), member("./a", content=b"2"), member("a/b", content=b"2"),
])
def test_one_path_twice_is_not_unpacked(tmp_path, second):
    archive = make_tar(tmp_path / "a.tar", member("a", content=b"1"), second)
    with pytest.raises(OODError, match="there twice"):
        extract(archive, tmp_path / "set")
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]


@pytest.mark.parametrize(("name", "says"), [
    ("../evil.txt", "leaves the folder"), ("a/../../evil.txt", "leaves the folder"), ("/evil.txt", "an absolute path"),
    ("..\\evil.txt", "leaves the folder"), ("a\0b.txt", "NUL"),
])
def test_harmful_zip(tmp_path, name, says):
    assert says in refused(make_zip(tmp_path / "a.zip", {"good.txt": b"", name: b"x"}), tmp_path)


@pytest.mark.parametrize("mode", [stat.S_IFLNK | 0o777, stat.S_IFCHR | 0o666])
def test_links_and_devices_in_a_zip(tmp_path, mode):
    assert "a link, a device" in refused(make_zip(tmp_path / "a.zip", {"x": b"/etc/passwd"}, mode), tmp_path)


def test_size_cap(tmp_path):
    big = member("zeros.bin", content=bytes(3_000_000))
    archives = [make_tar(tmp_path / "a.tar.gz", big, big, mode="w:gz"),
                make_zip(tmp_path / "b.zip", {"1": bytes(3_000_000), "2": bytes(3_000_000)}),
                tmp_path / "c.bin.gz"]
    archives[2].write_bytes(gzip.compress(bytes(6_000_000)))
    for archive in archives:
        assert archive.stat().st_size < 50_000
        assert "an archive bomb" in refused(archive, tmp_path, cap=5_999_999)
        assert sum(len(one.read()) for one in members(archive, cap=6_000_000)) == 6_000_000


def test_many_empty_files_count(tmp_path):
    archive = make_tar(tmp_path / "a.tar", *(member(str(i)) for i in range(20)))
    assert "an archive bomb" in refused(archive, tmp_path, cap=19 * 512)


def test_declared_size_in_a_zip_is_a_limit(tmp_path):
    """A zip that declares fewer bytes than it holds gives an error, not more bytes."""
    content = bytes(100_000)
    path = make_zip(tmp_path / "a.zip", {"x": content})
    raw = path.read_bytes().replace((100_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    path.write_bytes(raw)
    assert "not a whole archive" in refused(path, tmp_path)


# ---- damaged archives ------------------------------------------------------------------------------------------------

def test_truncated_archives(tmp_path):
    noise = os.urandom(200_000)
    whole = [make_tar(tmp_path / "a.tar", member("x", content=noise)),
             make_tar(tmp_path / "a.tar.gz", member("x", content=noise), mode="w:gz"),
             make_zip(tmp_path / "a.zip", {"x": noise}), tmp_path / "x.gz"]
    whole[3].write_bytes(gzip.compress(noise))
    for archive in whole:
        archive.write_bytes(archive.read_bytes()[:100_000])
        assert "not a whole archive" in refused(archive, tmp_path)


@pytest.mark.parametrize("content", [
    b"", bytes(10240), b"<!DOCTYPE html><html>not found</html>", b"\x80\x04\x95" * 700,
])
@pytest.mark.parametrize("name", ["a.tar.gz", "a.tar", "a.zip"])
def test_not_an_archive(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert "not a whole archive" in refused(tmp_path / name, tmp_path)


def test_wrong_checksum_in_a_zip(tmp_path):
    path = make_zip(tmp_path / "a.zip", {"x": b"content"})
    with zipfile.ZipFile(path) as archive:
        crc = archive.getinfo("x").CRC
    path.write_bytes(path.read_bytes().replace(crc.to_bytes(4, "little"), b"\1\2\3\4"))
    assert "not a whole archive" in refused(path, tmp_path)


def test_existing_folder_is_left_alone(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine.txt").write_text("keep")
    with pytest.raises(OODError, match="exists already"):
        extract(good_tar(tmp_path / "a.tar"), tmp_path / "set")
    assert on_disk(tmp_path / "set") == {"mine.txt": b"keep"}


@pytest.mark.data
def test_real_archives():
    root = Path(os.environ["OOD_DATA"])
    names = [one.name for one in members(root / "textures" / "dtd_subset.tar") if one.name.endswith(".jpg")]
    assert len(names) == 150
    assert all(one.read()[:2] == b"\xff\xd8" for one in members(root / "imagenet_sample" / "imagenet_sample_100.tar")
               if one.name.endswith(".JPEG"))
