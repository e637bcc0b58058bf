"""Fingerprints of raw files: any change of names or contents counts, at every depth; copying and touching do not."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workflow_scripts.core import fingerprint
from workflow_scripts.core.fingerprint import Fingerprints

TICK = iter(range(10**9, 10**18, 10**9))  # ns: no two writes here leave the same times


def put(path: Path | bytes, content: bytes) -> None:
    """Write a file, with another time than any before it."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)
    os.utime(path, ns=(now := next(TICK), now))


def taken(path: Path, kept: Path) -> list:
    return Fingerprints(kept).of([path], path.parent)[0]


@pytest.fixture(params=[False, True], ids=["read anew", "kept"])
def kept(request, tmp_path, monkeypatch):
    """Where contents are kept: never, as of files written just now, or always."""
    monkeypatch.setattr(fingerprint, "_RECENT", -(10**15) if request.param else 10**15)
    return tmp_path / "kept"


@pytest.fixture
def tree(tmp_path):
    folder = tmp_path / "raw"
    for name in ("a/1.png", "a/2.png", "b/1.png", "b/deep/er/3.png", "4.png"):
        put(folder / name, name.encode())
    return folder


@pytest.fixture
def read(monkeypatch):
    """Names of the files whose content is read."""
    names: list[bytes] = []
    content = fingerprint._content
    monkeypatch.setattr(fingerprint, "_content", lambda path, said: names.append(os.path.basename(path))
                        or content(path, said))
    return names


def swap(tree):
    os.rename(tree / "a/1.png", tree / "x")
    os.rename(tree / "b/1.png", tree / "a/1.png")
    os.rename(tree / "x", tree / "b/1.png")


CHANGES = {
    "replaced": lambda tree: put(tree / "a/1.png", b"A/1.png"),
    "repaired three levels down": lambda tree: put(tree / "b/deep/er/3.png", b"b/deep/er/3.pnG"),
    "longer": lambda tree: put(tree / "a/1.png", b"a/1.png."),
    "renamed": lambda tree: os.rename(tree / "a/1.png", tree / "a/0.png"),
    "moved to another class": lambda tree: os.rename(tree / "a/2.png", tree / "b/2.png"),
    "two swapped": swap,
    "added three levels down": lambda tree: put(tree / "b/deep/er/9.png", b""),
    "an empty folder": lambda tree: os.mkdir(tree / "c"),
    "removed": lambda tree: os.unlink(tree / "4.png"),
    "a folder renamed": lambda tree: os.rename(tree / "b/deep", tree / "b/dee"),
    "a link to nothing": lambda tree: os.symlink("/gone/1.png", tree / "a/link.png"),
    "hidden": lambda tree: put(tree / "a/.hidden/1.png", b""),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_change_is_noticed(tree, kept, change):
    before = taken(tree, kept)
    assert before[:2] == ["raw", "5 files"] and taken(tree, kept) == before
    change(tree)
    after = taken(tree, kept)
    assert after != before and taken(tree, kept) == after


def test_another_content_with_the_time_put_back_is_noticed(tree, kept):
    """As a copy that keeps times leaves it: the system's own time tells."""
    before, stat = taken(tree, kept), os.stat(tree / "a/1.png")
    threading.Event().wait(0.05)  # more than a tick of the file system's clock
    (tree / "a/1.png").write_bytes(b"A/1.png")
    os.utime(tree / "a/1.png", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert taken(tree, kept) != before


def test_touching_copying_and_moving_change_nothing(tree, kept, tmp_path):
    before = taken(tree, kept)
    for file in tree.rglob("*.png"):
        os.utime(file, ns=(now := next(TICK), now))
    assert taken(tree, kept) == before
    other = tmp_path / "other"
    shutil.copytree(tree, other / "raw")
    assert taken(other / "raw", kept) == before
    os.rename(other, tmp_path / "moved")
    assert taken(tmp_path / "moved" / "raw", kept) == before
    put(tree / "a/1.png", b"A/1.png")
    put(tree / "a/1.png", b"a/1.png")
    assert taken(tree, kept) == before


def test_an_archive_changed_in_its_middle_is_noticed(tmp_path, kept):
    put(tmp_path / "a.tar", b"x" * 3_000_000)
    before = taken(tmp_path / "a.tar", kept)
    assert before[:2] == ["a.tar", 3_000_000] and taken(tmp_path / "a.tar", kept) == before
    put(tmp_path / "a.tar", b"x" * 1_500_000 + b"y" + b"x" * 1_499_999)
    assert taken(tmp_path / "a.tar", kept) != before
    put(tmp_path / "a.tar", b"x" * 3_000_000)
    assert taken(tmp_path / "a.tar", kept) == before


def test_contents_are_read_once_and_then_only_where_something_changed(tree, tmp_path, monkeypatch, read):
    monkeypatch.setattr(fingerprint, "_RECENT", -(10**15))
    kept = tmp_path / "kept"
    before = taken(tree, kept)
    assert len(read) == 5
    assert taken(tree, kept) == before and len(read) == 5
    put(tree / "b/deep/er/3.png", b"another")
    after = taken(tree, kept)
    assert read[5:] == [b"3.png"]
    (file,) = kept.iterdir()
    for damaged in (b"", file.read_bytes()[:-9], file.read_bytes().replace(b"a", b"b"), b"\xff\xfe"):
        del read[:]
        file.write_bytes(damaged)
        assert taken(tree, kept) == after and len(read) == 5
    file.unlink()
    assert taken(tree, kept) == after
    file.unlink()
    kept.rmdir()
    kept.write_text("no folder")  # nor any place to keep them
    assert taken(tree, kept) == after


def test_a_file_written_just_now_is_not_trusted_to_stay(tree, tmp_path, read):
    """Within one tick of the clock it may change again and keep its times."""
    for count in (5, 10):
        taken(tree, tmp_path / "kept")
        assert len(read) == count


def test_two_runs_share_what_is_kept(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprint, "_RECENT", -(10**15))
    kept, found, wrong = tmp_path / "kept", set(), []

    def run():
        try:
            for _ in range(20):
                found.add(tuple(taken(tree, kept)))
                for file in kept.iterdir():
                    file.unlink(missing_ok=True)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and found == {tuple(taken(tree, kept))}


def test_links_loops_and_what_cannot_be_read(tmp_path, kept):
    """Links are followed, but for loops; names that are no UTF-8 and links to nothing end nothing."""
    raw, elsewhere = tmp_path / "raw", tmp_path / "elsewhere"
    put(elsewhere / "a/1.png", b"1")
    os.makedirs(raw / "b")
    os.symlink(elsewhere / "a", raw / "a")
    before = taken(raw, kept)
    put(elsewhere / "a/1.png", b"2")  # behind the link
    after = taken(raw, kept)
    assert before != after and before[1] == "1 files"
    os.symlink(raw, raw / "b" / "up")
    os.symlink(elsewhere, elsewhere / "a" / "over")
    os.symlink("me", raw / "me")
    put(os.fsencode(raw) + b"/b/caf\xe9.png", b"1")
    looped = taken(raw, kept)
    assert looped[1] == "5 files"  # 1.png, the café, and three links that lead nowhere new
    put(os.fsencode(raw) + b"/b/caf\xe9.png", b"2")
    assert taken(raw, kept) != looped
    os.mkfifo(raw / "pipe")
    assert taken(raw, kept)[1] == "6 files"


def test_a_large_folder_is_kept_in_parts(tmp_path, monkeypatch, read):
    monkeypatch.setattr(fingerprint, "_RECENT", -(10**15))
    monkeypatch.setattr(fingerprint, "_PART", 40)
    for number in range(400):
        put(tmp_path / "raw" / f"{number:03}.png", b"%d" % number)
    before = taken(tmp_path / "raw", tmp_path / "kept")
    assert before[1] == "400 files" and len(read) == 400
    del read[:]
    put(tmp_path / "raw" / "2005.png", b"")
    assert taken(tmp_path / "raw", tmp_path / "kept")[1] == "401 files"
    assert 1 <= len(read) < 200


NAMES = st.sampled_from(["a", "b", "a/a", "a/b", "b/a", "b/c/d", "c"])
CONTENTS = st.sampled_from([b"", b"1", b"2", b"12"])


@settings(max_examples=60, deadline=None)
@given(first=st.dictionaries(NAMES, CONTENTS), second=st.dictionaries(NAMES, CONTENTS))
def test_two_folders_have_one_fingerprint_just_if_they_hold_the_same(first, second):
    """The second is made out of the first, with what was kept of it."""
    def write(folder: Path, files: dict[str, bytes]) -> None:
        for name, content in files.items():
            if not (folder / f"{name}.png").exists() or (folder / f"{name}.png").read_bytes() != content:
                put(folder / f"{name}.png", content)

    with TemporaryDirectory() as temporary, pytest.MonkeyPatch.context() as patch:
        patch.setattr(fingerprint, "_RECENT", -(10**15))
        raw, kept = Path(temporary, "raw"), Path(temporary, "kept")
        raw.mkdir()
        write(raw, first)
        before = taken(raw, kept)
        for name in first.keys() - second.keys():
            os.unlink(raw / f"{name}.png")
        write(raw, second)
        folders = {Path(name).parent for name in first} == {Path(name).parent for name in second}
        after = taken(raw, kept)
        if first == second:
            assert after == before
        elif folders:  # an emptied folder counts too
            assert after != before
        shutil.rmtree(kept, ignore_errors=True)
        assert taken(raw, kept) == after


def test_many_files_of_a_folder_are_kept_in_one_file(tmp_path, monkeypatch, read):
    """Also where another run asks for some of them only."""
    monkeypatch.setattr(fingerprint, "_RECENT", -(10**15))
    paths = [tmp_path / "raw" / f"{number}.tar" for number in range(30)]
    for path in paths:
        put(path, path.name.encode())
    before = Fingerprints(tmp_path / "kept").of(paths, tmp_path)
    assert [entry[0] for entry in before] == [f"raw/{number}.tar" for number in range(30)] and len(read) == 30
    put(paths[3], b"other")
    some = Fingerprints(tmp_path / "kept").of(paths[3:4], tmp_path)
    assert some[0] != before[3] and len(read) == 31
    after = Fingerprints(tmp_path / "kept").of(paths, tmp_path)
    assert after == [*before[:3], *some, *before[4:]] and len(read) == 31
    assert len(list((tmp_path / "kept").iterdir())) == 1


def test_what_cannot_be_read_ends_nothing_and_is_not_kept(tree, kept, monkeypatch):
    def broken(path, said):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(fingerprint, "_content", broken)
        locked = taken(tree, kept), taken(tree / "a/1.png", kept)
    assert taken(tree, kept) != locked[0] and taken(tree / "a/1.png", kept) != locked[1]


def test_a_list_of_jobs_reads_no_raw_file(tree, tmp_path, monkeypatch, read):
    monkeypatch.setattr(fingerprint, "_reads", [True])
    fingerprint.read_nothing()
    assert taken(tree, tmp_path / "kept") == ["raw", "not read", ""] and not read
